"""SocketCluster's worker: serves clients and runs the user's controller."""
