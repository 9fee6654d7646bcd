"""What SocketCluster's services share: settings, logging, lifecycle, sockets, and gRPC between them.

All of it may be imported by services and the launcher, and imports none of them.
"""

import os

# gRPC's C core reads it when it is imported. What it says comes as an exception too, and strangers could fill the log.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
