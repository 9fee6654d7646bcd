"""What a partition keeps, as commands on an ordered key-value transaction, without I/O.

The executor puts it together, and engines call that; partitions know ``channel_rules``, ``applied_log``, the details of
``channel_log`` and what ``watches`` tells.
"""
