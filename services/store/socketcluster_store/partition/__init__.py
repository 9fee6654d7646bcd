"""One owned partition: operations in, results and events out, everything in its order.

``ownership`` knows ``partition``; the service also what all partitions share (``channel_troubles``, ``deadlines``), the
servicer what is said where there is no partition (``deduplication``).
"""
