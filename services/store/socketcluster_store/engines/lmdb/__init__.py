"""The engine that keeps each partition in LMDB, with a journal before it.

From outside: ``engine.LmdbEngine``; ``inspection`` for the commands ``verify`` and ``accept``.
"""
