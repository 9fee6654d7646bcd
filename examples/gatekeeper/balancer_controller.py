"""A gatekeeper: every balancer asks it about the first request of each connection.

Run it with ``make run CONTROLLER=examples/gatekeeper/controller.py WORKERS=2``, then ask with ``curl -i``.
"""

from socketcluster_balancer import Balancer, RefusedError, Request

BANNED = {"192.0.2.66"}
MAX_WEBSOCKETS = 10_000


def run(balancer: Balancer) -> None:
    @balancer.middleware("request")
    @balancer.middleware("upgrade")
    def keep_out(request: Request) -> None:
        host, _ = request.address
        if host in BANNED or "badbot" in request.headers.get("user-agent", "").lower():
            raise RefusedError(403, "You are not welcome here.")

    @balancer.middleware("request")
    def move(request: Request) -> None:
        if request.path == "/old":
            raise RefusedError(301, headers={"Location": "/new"})

    @balancer.middleware("request")
    def route(request: Request) -> None:
        if request.path.startswith("/reports/"):  # they take long, so they have a worker of their own
            request.worker = "worker-0"

    @balancer.middleware("upgrade")
    async def limit(request: Request) -> None:  # async functions may ask others: a database, an address list
        if sum(worker.connections for worker in balancer.workers) >= MAX_WEBSOCKETS:
            raise RefusedError(503, "We are full.", headers={"Retry-After": "30"})
