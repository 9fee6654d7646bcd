"""The message protocols: each makes sockets of connections."""
