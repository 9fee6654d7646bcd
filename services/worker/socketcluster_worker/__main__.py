"""``python -m socketcluster_worker``."""

from socketcluster_runtime import lifecycle
from socketcluster_worker.service import serve
from socketcluster_worker.settings import WorkerSettings

if __name__ == "__main__":
    lifecycle.run(WorkerSettings, serve)
