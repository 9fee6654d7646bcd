"""The balancer's controller of the scenarios: asks asynchronously about everybody, and refuses one path."""

import asyncio

from socketcluster_balancer import RefusedError


async def run(balancer):
    await asyncio.sleep(0)

    @balancer.middleware("request")
    @balancer.middleware("upgrade")
    async def examine(request):
        await asyncio.sleep(0)
        if request.path == "/refused":
            raise RefusedError(403, f"not by {balancer.name}", headers={"X-Session": request.session_id or "none"})
