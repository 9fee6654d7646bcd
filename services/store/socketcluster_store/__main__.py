"""``python -m socketcluster_store``."""

from __future__ import annotations

from socketcluster_runtime import lifecycle
from socketcluster_store.service import serve
from socketcluster_store.settings import StoreSettings

if __name__ == "__main__":
    lifecycle.run(StoreSettings, serve)
