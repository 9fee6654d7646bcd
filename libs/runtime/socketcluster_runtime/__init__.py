"""What SocketCluster's services share: settings, logging, lifecycle and the gRPC link."""
