"""SocketCluster's store: keeps sessions and channels, and tells workers what happens to them."""
