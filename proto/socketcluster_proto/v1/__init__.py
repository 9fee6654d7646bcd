"""Version 1 of the contracts: ``store.proto`` and ``worker.proto``."""
