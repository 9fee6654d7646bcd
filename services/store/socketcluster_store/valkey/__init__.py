"""What the engine ``valkey`` needs to speak to Valkey or Redis: scripts, connections, membership across machines."""
