"""What engines share that keep partitions in a folder: locks, manifests, their register, which stores live.

The engines ``lmdb`` and ``memory`` use it, and the commands ``verify`` and ``accept``.
"""
