"""Which partitions this store owns, as stores come, go and hang.

The service builds ``partitions``; engines implement ``membership``.
"""
