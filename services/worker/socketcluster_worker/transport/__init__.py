"""The transports: each carries messages over TCP connections."""
