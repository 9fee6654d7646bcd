"""Which partitions this store owns, as stores come, go and hang.

The service builds ``partitions``, from which the servicer takes them; engines implement ``membership``.
"""
