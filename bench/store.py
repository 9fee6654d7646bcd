"""What the store costs, beside Redis on the same machine: ``make bench-store``, or ``python -m bench.store --help``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from secrets import token_urlsafe
from statistics import median
from typing import Any, NamedTuple

import msgspec
import structlog
import uvloop

from bench import expiry
from bench.servers import Redis, Server, Store, StoreOnRedis
from socketcluster_proto.v1 import store_pb2
from socketcluster_store_client.client import StoreClient

CALLERS = 100
SESSIONS = 1000
SUBSCRIBERS = 10
VALUE = msgspec.msgpack.encode("x" * 100)
SESSION_VALUE = msgspec.msgpack.encode("x" * 197)  # 200 bytes with its head
SESSIONS_AT_ONCE = 5000

GET = store_pb2.VERB_GET
SET = store_pb2.VERB_SET
PUBLISH = store_pb2.VERB_CHANNEL_PUBLISH

Call = Callable[[str], Awaitable[Any]]


class Figures(NamedTuple):
    """One line of the table; times in seconds, each per operation."""

    rate: float
    server_cpu: float
    client_cpu: float


class Throughput(NamedTuple):
    """What one server was measured to do."""

    both: Figures
    gets: Figures
    sets: Figures
    round_trip: float
    deliveries: Figures


async def run(server: Server, seconds: float, *calls: Call) -> Figures:
    """Have every caller make ``calls`` in turn for a while; each call is an operation."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    done = 0

    async def caller(number: int) -> None:
        nonlocal done
        turn = 0
        while loop.time() < end:
            key = f"session{(number * 7 + turn) % SESSIONS}"
            turn += 1
            for call in calls:
                await call(key)
                done += 1

    cpu, own, began = server.cpu(), time.process_time(), loop.time()
    await asyncio.gather(*map(caller, range(CALLERS)))
    return Figures(done / (loop.time() - began), (server.cpu() - cpu) / done, (time.process_time() - own) / done)


async def round_trip(*calls: Call) -> float:
    """Return the median seconds of a call when there is one caller."""
    times = []
    for turn in range(SESSIONS):
        for call in calls:
            began = time.perf_counter()
            await call(f"session{turn}")
            times.append(time.perf_counter() - began)
    return median(times)


class Arrivals:
    """Counts messages, and tells when as many as expected have come."""

    def __init__(self) -> None:
        self.count = 0
        self._expected = -1
        self._complete = asyncio.Event()

    def add(self, *_message: object) -> None:
        """Count one."""
        self.count += 1
        if self.count == self._expected:
            self._complete.set()

    async def wait(self, expected: int) -> None:
        """Return when there are ``expected``."""
        self._expected = expected
        if self.count != expected:
            await self._complete.wait()
            self._complete.clear()


async def deliveries(
    server: Server, seconds: float, publish: Callable[[], Awaitable[Any]], arrivals: Arrivals
) -> Figures:
    """Publish from 20 callers for a while, to ``SUBSCRIBERS``; a delivery is an operation."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    published = 0

    async def caller() -> None:
        nonlocal published
        while loop.time() < end:
            await publish()
            published += 1

    before = arrivals.count
    cpu, own, began = server.cpu(), time.process_time(), loop.time()
    await asyncio.gather(*(caller() for _ in range(20)))
    done = published * SUBSCRIBERS
    async with asyncio.timeout(60):
        await arrivals.wait(before + done)
    return Figures(done / (loop.time() - began), (server.cpu() - cpu) / done, (time.process_time() - own) / done)


async def measure_store(store: Store, seconds: float) -> Throughput:
    """Measure a store through the link."""
    arrivals = Arrivals()
    async with contextlib.AsyncExitStack() as stack:
        client = await store.link("worker00")
        stack.push_async_callback(client.close)
        for number in range(SUBSCRIBERS):
            subscriber = await store.link(f"worker{number + 1:02}", arrivals.add)
            stack.push_async_callback(subscriber.close)
            await subscriber.subscribe("news")

        def get(key: str) -> Awaitable[bytes]:
            return client.call(GET, session_id=key, keys=("k",))

        def put(key: str) -> Awaitable[bytes]:
            return client.call(SET, session_id=key, keys=("k",), value=VALUE)

        for number in range(SESSIONS):  # as a session is that is used: a socket of it is there
            await client.attach(f"session{number}")
        return Throughput(
            await run(store, seconds, put, get),
            await run(store, seconds, get),
            await run(store, seconds, put),
            await round_trip(put, get),
            await deliveries(store, seconds, lambda: client.call(PUBLISH, name="news", value=VALUE), arrivals),
        )


async def measure_redis(server: Redis, seconds: float) -> Throughput:
    """Measure Redis through its own client."""
    arrivals = Arrivals()
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(server.connect())
        tasks = []
        for _ in range(SUBSCRIBERS):
            subscriber = await stack.enter_async_context(client.pubsub(ignore_subscribe_messages=True))
            await subscriber.subscribe(news=arrivals.add)
            await subscriber.get_message(timeout=1)
            tasks.append(asyncio.create_task(subscriber.run()))

        def get(key: str) -> Awaitable[Any]:
            return client.get(key)

        def put(key: str) -> Awaitable[Any]:
            return client.set(key, VALUE)

        try:
            return Throughput(
                await run(server, seconds, put, get),
                await run(server, seconds, get),
                await run(server, seconds, put),
                await round_trip(put, get),
                await deliveries(server, seconds, lambda: client.publish("news", VALUE), arrivals),
            )
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


class Sessions(NamedTuple):
    """What many sessions cost one server."""

    made: float
    memory: float
    memory_after_restart: float
    restart: float


async def fill_store(client: StoreClient, count: int) -> None:
    """Attach sessions, and give each 200 bytes."""
    for _ in range(0, count, SESSIONS_AT_ONCE):
        calls: list[Awaitable[bytes]] = []
        for _ in range(SESSIONS_AT_ONCE):
            session_id = "worker00" + token_urlsafe(16)
            calls.append(client.attach(session_id))
            calls.append(client.call(SET, session_id=session_id, keys=("data",), value=SESSION_VALUE))
        await asyncio.gather(*calls)


async def measure_sessions_of_store(store: Store, count: int) -> Sessions:
    """Measure memory, and the time until a store that starts again has its partitions open."""
    before = store.memory()
    client = await store.link("worker00")
    began = time.monotonic()
    await fill_store(client, count)
    made = time.monotonic() - began
    await asyncio.sleep(2)  # what is written behind
    memory = store.memory() - before
    await client.close()
    await store.stop()
    restart = await store.start()
    return Sessions(made, memory / count, (store.memory() - before) / count, restart)


async def measure_sessions_of_redis(server: Redis, count: int) -> Sessions:
    """The same of Redis: a key with a time to live for each session."""
    before = server.memory()
    async with server.connect() as client:
        began = time.monotonic()
        for _ in range(0, count, SESSIONS_AT_ONCE):
            pipeline = client.pipeline(transaction=False)
            for _ in range(SESSIONS_AT_ONCE):
                pipeline.hset("worker00" + token_urlsafe(16), "data", SESSION_VALUE)
            await pipeline.execute()
        made = time.monotonic() - began
    await asyncio.sleep(2)
    memory = server.memory() - before
    await server.stop()
    restart = await server.start()
    return Sessions(made, memory / count, (server.memory() - before) / count, restart)


async def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.store")
    parser.add_argument("--seconds", type=float, default=1.5, help="how long each load lasts, in each round")
    parser.add_argument("--rounds", type=int, default=3, help="how often each server has its turn")
    parser.add_argument("--sessions", type=int, default=1_000_000, help="how many sessions to keep; 0: skip that part")
    parser.add_argument("--only", default="", help="measure only the servers whose names contain this")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        servers: list[Server] = [
            Store(folder / "lmdb", "lmdb", "everysec"),
            Store(folder / "always", "lmdb", "always"),
            Store(folder / "memory", "memory", "none"),
        ]
        if shutil.which("redis-server"):
            servers += [StoreOnRedis(folder / "valkey"), Redis(folder / "redis")]
        else:
            sys.stderr.write("no redis-server is installed (Debian: apt install redis-server): it is left out\n")
        servers = [server for server in servers if options.only in server.name]
        rows: dict[str, list[Throughput]] = {server.name: [] for server in servers}
        for _ in range(options.rounds):  # what else the machine does meanwhile concerns all of them
            for server in servers:
                async with server:
                    if isinstance(server, Store):
                        rows[server.name].append(await measure_store(server, options.seconds))
                    elif isinstance(server, Redis):
                        rows[server.name].append(await measure_redis(server, options.seconds))
        print_throughput(rows)
        kept: dict[str, Sessions] = {}
        for server in servers if options.sessions else ():
            if server.name in ("lmdb/everysec", "redis/everysec"):
                shutil.rmtree(server.folder)
                server.folder.mkdir()
                async with server:
                    if isinstance(server, Store):
                        kept[server.name] = await measure_sessions_of_store(server, options.sessions)
                    elif isinstance(server, Redis):
                        kept[server.name] = await measure_sessions_of_redis(server, options.sessions)
        if kept:
            print_sessions(kept, options.sessions)
        if options.sessions and options.only in "expiry":
            await expiry.measure(folder / "expiry", options.sessions)


def print_throughput(rows: dict[str, list[Throughput]]) -> None:
    """Print one line a server and load: of its rounds the median and the best rate, and the least CPU an operation."""
    print(f"Python {sys.version}")  # noqa: T201
    print(f"{CALLERS} callers, values of {len(VALUE)} bytes; a publish goes to {SUBSCRIBERS} subscribers")  # noqa: T201
    print(f"{'':16}{'':12}{'a second':>12}{'at best':>12}{'server CPU':>14}{'client CPU':>14}")  # noqa: T201
    for name, rounds in rows.items():
        for load, figures in (
            ("set+get", [row.both for row in rounds]),
            ("get", [row.gets for row in rounds]),
            ("set", [row.sets for row in rounds]),
            ("delivery", [row.deliveries for row in rounds]),
        ):
            rates = [each.rate for each in figures]
            server_cpu = min(each.server_cpu for each in figures)
            client_cpu = min(each.client_cpu for each in figures)
            print(  # noqa: T201
                f"{name:16}{load:12}{median(rates):12,.0f}{max(rates):12,.0f}{server_cpu * 1e6:11.1f} "
                f"µs{client_cpu * 1e6:11.1f} µs"
            )
        round_trips = [row.round_trip for row in rounds]
        print(  # noqa: T201
            f"{name:16}{'round trip':12}{median(round_trips) * 1e3:9.2f} ms, at best {min(round_trips) * 1e3:.2f} ms, "
            "median of one caller"
        )


def print_sessions(kept: dict[str, Sessions], count: int) -> None:
    """Print one line a server."""
    print(f"{count:,} sessions of {len(SESSION_VALUE)} bytes each")  # noqa: T201
    print(f"{'':16}{'made in':>12}{'a session':>14}{'restarted':>14}{'restart':>12}")  # noqa: T201
    for name, row in kept.items():
        print(  # noqa: T201
            f"{name:16}{row.made:10.1f} s{row.memory:12,.0f} B{row.memory_after_restart:12,.0f} B{row.restart:10.2f} s"
        )


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    uvloop.run(main())
