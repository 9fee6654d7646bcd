"""SocketCluster's balancer: accepts clients and hands each one to a worker."""
