"""What attacks cost other clients: ``python -m bench.attack [--seconds 5] [--rounds 3] [--only NAME] [OPTION ...]``.

A cluster of local processes, other clients from 127.0.0.1, and an attacker from 127.0.0.2 in a process of its own. That
shares the machine's cores with the rest, at the least priority: an attacker has its own computer. Attacks on the
balancer are measured with clients that make a new connection for each request; floods of one connection at a worker
with clients whose connections are open, and whose events are acknowledged. Quiet and attacked times take turns.
OPTIONs are further ones of the cluster.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import psutil
import uvloop

from bench.acknowledge import cpu_of, start
from bench.floods import ATTACKER, FLOODS, OtherClients

RATE = 100
"""Requests a second of the other clients, each at its time, however long the one before takes."""
PATIENCE = 10.0
"""Seconds after which a request has failed."""
REQUEST = b"GET /socketcluster.js HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
LIMITS = (
    *("--address-socket-limit", "1000", "--address-connection-rate", "150", "--address-connection-burst", "150"),
    *("--head-timeout", "5", "--first-byte-timeout", "5"),
)
PIECE = b"x" * 65_536
BIG = 10 * 1024 * 1024

Others = Callable[[float], Awaitable[list[float | None]]]
"""Are other clients for so many seconds; return how long each of their requests was kept."""
Attack = Callable[[int], Awaitable[None]]


async def _connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port, local_addr=ATTACKER)


async def slowloris(port: int) -> None:
    """Send a head, a byte a second."""
    _, writer = await _connect(port)
    try:
        for byte in b"GET / HTTP/1.1\r\nx: " + bytes(10_000):
            writer.write(bytes((byte,)))
            await writer.drain()
            await asyncio.sleep(1)
    finally:
        writer.close()


async def half_open(port: int) -> None:
    """Connect and say nothing until the balancer closes."""
    reader, writer = await _connect(port)
    try:
        await reader.read()
    finally:
        writer.close()


async def big_head(port: int) -> None:
    """Send 10 MB of one header field."""
    _, writer = await _connect(port)
    try:
        writer.write(b"GET / HTTP/1.1\r\nx: ")
        for _ in range(BIG // len(PIECE)):
            writer.write(PIECE)
            await writer.drain()
    finally:
        writer.close()


async def flood(port: int) -> None:
    """Connect, ask, and go, as fast as it goes."""
    reader, writer = await _connect(port)
    try:
        writer.write(REQUEST)
        await reader.read()
    finally:
        writer.close()


ATTACKS: dict[str, tuple[Attack, int]] = {
    "slowloris": (slowloris, 500),
    "half-open": (half_open, 2000),
    "10 MB of header": (big_head, 8),
    "flood of requests": (flood, 8),
}
"""Each attack on the balancer, and how many of it are under way at a time; one that ends begins again."""
ALL: dict[str, tuple[Attack, int]] = ATTACKS | {name: (flood, 1) for name, flood in FLOODS.items()}


async def attack(name: str, port: int) -> None:
    """Attack until ended; print a line once all are under way."""
    os.nice(19)
    one, many = ALL[name]

    async def again_and_again() -> None:
        while True:
            with suppress(OSError, RuntimeError):  # the latter is uvloop's, of a connection that has ended
                await one(port)
            await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as tasks:
        for number in range(many):
            tasks.create_task(again_and_again())
            if number % 50 == 49:
                await asyncio.sleep(0.05)
        print("attacking", flush=True)  # noqa: T201


@asynccontextmanager
async def attacked(name: str, port: int) -> AsyncIterator[None]:
    """Have an attacker at work."""
    process, _ = await start(sys.executable, "-m", "bench.attack", "--attacker", name, "--port", str(port))
    try:
        yield
    finally:
        process.kill()
        await process.wait()


async def request(port: int, due: float) -> float | None:
    """Ask once, on a new connection; return the seconds since it was due, or ``None`` if it failed."""
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(REQUEST)
                answer = await reader.read()
            finally:
                writer.close()
    except OSError:  # TimeoutError is one
        return None
    return time.monotonic() - due if answer.startswith(b"HTTP/1.1 200") else None


async def other_clients(port: int, seconds: float) -> list[float | None]:
    """Be the other clients; return how long each was kept."""
    requests: list[asyncio.Task[float | None]] = []
    began = time.monotonic()
    for number in range(round(seconds * RATE)):
        due = began + number / RATE
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        requests.append(asyncio.create_task(request(port, due)))
    return await asyncio.gather(*requests)


class Figures:
    """What was measured of one situation."""

    def __init__(self) -> None:
        self.kept: list[float | None] = []
        self.cpu = 0.0
        self.seconds = 0.0
        self.memory = 0

    async def add(self, others: Others, seconds: float, process: psutil.Process) -> None:
        """Measure once."""
        used, began = cpu_of(process.pid), time.monotonic()
        before = used()
        self.kept += await others(seconds)
        self.cpu += used() - before
        self.seconds += time.monotonic() - began
        self.memory = max(self.memory, process.memory_info().rss)

    def line(self, name: str) -> str:
        """Return all of it."""
        served = sorted(seconds for seconds in self.kept if seconds is not None)
        middle, late = (_quantile(served, share) * 1000 for share in (0.5, 0.99))
        failed = len(self.kept) - len(served)
        return (
            f"{name:20} {len(self.kept):8} {failed:7} {middle:9.1f} ms {late:9.1f} ms {self.cpu / self.seconds:9.0%} "
            f"{self.memory / 2**20:8.1f} MiB"
        )


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


async def measure(seconds: float, rounds: int, only: list[str], options: list[str]) -> None:
    """Measure all attacks and print the figures."""
    controller = Path(__file__).with_name("controller.py")
    with tempfile.TemporaryDirectory() as data:
        arguments = ("--port", "0", "--workers", "1", "--data-dir", data, *LIMITS, *options)
        cluster, ready = await start(sys.executable, "-m", "socketcluster", "run", str(controller), *arguments)
        try:
            if not ready.startswith("ready "):
                raise SystemExit("the cluster did not start: does it know all options?")
            port = int(ready.rpartition(":")[2])
            events = OtherClients(port, RATE)
            await events.open()
            for title, names, others, service in (
                ("new connections", ATTACKS, partial(other_clients, port), "socketcluster_balancer"),
                ("events", FLOODS, events.measure, "socketcluster_worker"),
            ):
                wanted = [name for name in names if not only or name in only]
                if wanted:
                    (process,) = (c for c in psutil.Process(cluster.pid).children() if service in c.cmdline())
                    figures = await _measure(port, wanted, others, process, (seconds, rounds))
                    _print(
                        f"{RATE} {title} a second of others, {rounds} rounds of {seconds:g} s; {service}'s CPU, memory"
                    )
                    _print(
                        f"{'attack':20} {'requests':>8} {'failed':>7} {'p50':>12} {'p99':>12} {'CPU':>9} {'memory':>12}"
                    )
                    for name, found in figures.items():
                        _print(found.line(name))
            events.close()
        finally:
            cluster.terminate()
            await cluster.wait()


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201


async def _measure(
    port: int, names: list[str], others: Others, process: psutil.Process, times: tuple[float, int]
) -> dict[str, Figures]:
    seconds, rounds = times
    figures = {name: Figures() for name in ("nobody", *names)}
    await others(1)  # warm
    for _ in range(rounds):
        for name in names:
            await figures["nobody"].add(others, seconds / len(names), process)
            async with attacked(name, port):
                await figures[name].add(others, seconds, process)
            await asyncio.sleep(1)  # what the attacker left behind is closed
    return figures


def main() -> None:
    """Be the measurement, or the attacker that it starts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", choices=ALL, default=[])
    parser.add_argument("--attacker", choices=ALL, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    given, options = parser.parse_known_args()
    if given.attacker is not None:
        uvloop.run(attack(given.attacker, given.port))
    else:
        uvloop.run(measure(given.seconds, given.rounds, given.only, options))


if __name__ == "__main__":
    main()
