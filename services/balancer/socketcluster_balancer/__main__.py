"""``python -m socketcluster_balancer``."""

from __future__ import annotations

from socketcluster_balancer.service import serve
from socketcluster_balancer.settings import BalancerSettings
from socketcluster_runtime import lifecycle

if __name__ == "__main__":
    lifecycle.run(BalancerSettings, serve)
