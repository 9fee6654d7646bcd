"""What a controller sees: ``worker`` and everything that can be reached from it."""
