"""The engine that keeps partitions in Valkey or Redis, one server or a Cluster.

From outside: ``engine.ValkeyEngine``, and ``urls`` for the settings.
"""
