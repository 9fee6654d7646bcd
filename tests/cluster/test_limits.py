"""Limits of the balancer in a whole cluster: connections count as long as workers serve them."""

from __future__ import annotations

from pathlib import Path

from support.clients.raw import RawClient, connect, upgrade
from support.cluster.cluster import until
from support.cluster.local import LocalCluster

CONTROLLER = Path(__file__).parents[1] / "controllers" / "scenario" / "controller.py"


async def test_websockets_count_until_they_end_or_their_worker_is_killed(tmp_path: Path) -> None:
    async with LocalCluster(CONTROLLER, tmp_path / "data", "--address-socket-limit", "3", workers=1) as cluster:
        port = int(cluster.url.rpartition(":")[2])

        async def ask() -> tuple[RawClient, int]:
            client = await connect(port)
            await client.send(upgrade())
            answer = await client.answer()
            if answer.status_code == 429:
                assert int(answer.headers["Retry-After"]) > 0
                assert await client.closed() == b""
            if answer.status_code != 101:  # 503: the worker that was killed has no successor yet
                client.close()
            return client, answer.status_code

        async def enter() -> RawClient:
            """Ask until there is room: the end of a connection is told a moment later."""
            return (await until(ask, lambda asked: asked[1] == 101))[0]

        opened: list[RawClient] = []
        for _ in range(3):
            client, status = await ask()
            assert status == 101
            opened.append(client)
        assert (await ask())[1] == 429
        opened.pop().close()
        opened.append(await enter())
        assert (await ask())[1] == 429
        await cluster.kill("worker")
        for client in opened:
            await client.closed()
            client.close()
        opened = [await enter() for _ in range(3)]
        assert (await ask())[1] == 429
        for client in opened:
            client.abort()
