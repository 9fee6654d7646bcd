"""What a partition keeps, as commands on an ordered key-value transaction, without I/O.

Engines call ``trees``; partitions know ``channel_rules``, ``applied_log`` and the errors of ``key_chains``.
"""
