"""What a partition keeps, as commands on an ordered key-value transaction, without I/O.

The executor, which engines call, puts it together; partitions know ``channel_rules``, ``applied_log``, the details of
``channel_log`` and what ``watches`` tells.
"""
