"""What SocketCluster's services share: settings, logging, lifecycle and the gRPC link."""

import os

# gRPC's C core reads it when it is imported. What it says comes as an exception too, and strangers could fill the log.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
