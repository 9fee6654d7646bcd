"""What a publication from one worker's client to another worker's costs each process: ``python -m bench.publish``."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import uvloop
from websockets.asyncio.client import ClientConnection, connect

from bench.acknowledge import SOCKETCLUSTER_HANDSHAKE, cpu_of, start

PAIRS = 8
"""Publishers on one worker, each with a subscriber on the other."""
WINDOW = 16
"""Publications of one publisher that have no answer yet."""
SECONDS = 1.0
ROUNDS = 12
DATA = {"user": "alice", "text": "hello there, how are you?", "tags": ["a", "b"], "at": 1764500000123, "read": False}
"""A chat's message."""
CID = 10
"""The first number of a publication."""


async def join(port: int) -> tuple[str, ClientConnection]:
    """Connect a client; return its worker, too."""
    client = await connect(f"ws://127.0.0.1:{port}/socketcluster/", compression=None, max_queue=None)
    await client.send(SOCKETCLUSTER_HANDSHAKE)
    await answer_to(client, 0)
    await client.send('{"event":"where","cid":1}')
    return str((await answer_to(client, 1))["data"]), client


async def answer_to(client: ClientConnection, cid: int) -> dict[str, object]:
    """Return the answer to a call, and drop what comes before."""
    while True:
        text = await client.recv()
        if text and (message := json.loads(text)).get("rid") == cid:
            assert "error" not in message, message  # noqa: S101
            return dict(message)


async def publish(client: ClientConnection, channel: str, ends: asyncio.Event) -> int:
    """Publish until told to end; return how often."""
    data, published, answered = json.dumps(DATA, separators=(",", ":")), 0, 0
    while not ends.is_set() or answered < published:
        while published - answered < WINDOW and not ends.is_set():
            published += 1
            await client.send(
                f'{{"event":"#publish","data":{{"channel":"{channel}","data":{data}}},"cid":{CID + published}}}'
            )
        if str(await client.recv()).startswith('{"rid"'):
            answered += 1
    return published


async def receive(client: ClientConnection) -> None:
    """Take what comes."""
    while True:
        await client.recv()


@asynccontextmanager
async def running() -> AsyncIterator[tuple[int, dict[str, Callable[[], float]]]]:
    """Run a cluster of two workers; give its port and what tells the CPU seconds of its processes."""
    with tempfile.TemporaryDirectory() as data:
        options = ("--port", "0", "--workers", "2", "--stores", "1", "--data-dir", data)
        controller = str(Path(__file__).parent / "controller.py")
        cluster, ready = await start(sys.executable, "-m", "socketcluster", "run", controller, *options)
        try:
            used: dict[str, list[Callable[[], float]]] = {"worker": [], "store": []}
            for child in psutil.Process(cluster.pid).children():
                for service, found in used.items():
                    if f"socketcluster_{service}" in child.cmdline():
                        found.append(cpu_of(child.pid))
            yield (
                int(ready.rpartition(":")[2]),
                {service: lambda found=found: sum(one() for one in found) for service, found in used.items()},  # type: ignore[misc]
            )
        finally:
            cluster.terminate()
            await cluster.wait()


async def main() -> None:
    """Measure and print."""
    async with running() as (port, used):
        clients: dict[str, list[ClientConnection]] = {}
        while sorted(len(found) >= PAIRS for found in clients.values()) != [True, True]:
            worker, client = await join(port)
            clients.setdefault(worker, []).append(client)
        publishers, subscribers = (found[:PAIRS] for found in clients.values())
        for number, client in enumerate(subscribers):
            await client.send(f'{{"event":"#subscribe","data":{{"channel":"room/{number}"}},"cid":2}}')
            await answer_to(client, 2)
        receiving = [asyncio.create_task(receive(client)) for client in subscribers]
        figures: dict[str, list[float]] = {service: [] for service in used}
        for _ in range(ROUNDS):
            before, ends = {service: cpu() for service, cpu in used.items()}, asyncio.Event()
            asyncio.get_running_loop().call_later(SECONDS, ends.set)
            counts = await asyncio.gather(
                *(publish(client, f"room/{number}", ends) for number, client in enumerate(publishers))
            )
            for service, cpu in used.items():
                figures[service].append((cpu() - before[service]) / sum(counts) * 1e6)
        for task in receiving:
            task.cancel()
    print(f"{PAIRS} publishers and as many subscribers, on two workers; {ROUNDS} rounds of {SECONDS:g} s; µs of CPU")  # noqa: T201
    for service, costs in figures.items():
        print(f"{service + 's':10} median {statistics.median(costs):6.1f}   best {min(costs):6.1f}")  # noqa: T201


if __name__ == "__main__":
    uvloop.run(main())
