"""What an acknowledged event costs the server, by protocol, beside a bare echo: ``python -m bench.acknowledge``."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import psutil
import uvloop

from bench.drive import dialects as drive
from bench.drive.dialects import Dialect
from bench.load import Load

CONNECTIONS = 200
SECONDS = 1.0
ROUNDS = 16  # short, and the servers in turn: what else the machine does slows all of them alike

SOCKETCLUSTER_HANDSHAKE = '{"event":"#handshake","data":{"authToken":null},"cid":0}'
DIALECTS = {
    "SocketCluster": drive.DIALECTS["socketcluster"],
    "SocketCluster on Engine.IO": Dialect(
        "/socketcluster/engine/?EIO=4&transport=websocket",
        ("4" + SOCKETCLUSTER_HANDSHAKE,),
        b'"pingTimeout":45',
        '4{"event":"{event}","data":{data},"cid":{n}}',
        b'4{"rid"',
    ),
    "Socket.IO": drive.DIALECTS["socketio"],
    "Engine.IO": Dialect("/engine.io/?EIO=4&transport=websocket", (), b"", "4{data}", b'4{"n"'),
}
FLOOR = Dialect("/", (), b"", '{"event":"{event}","data":{data},"cid":{n}}', b"{")


async def start(*argv: str, environ: dict[str, str] | None = None) -> tuple[asyncio.subprocess.Process, str]:
    """Start a server; return it and the first line that it prints."""
    process = await asyncio.create_subprocess_exec(
        *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, env={**os.environ, **(environ or {})}
    )
    assert process.stdout is not None  # noqa: S101  # it is a pipe
    return process, (await process.stdout.readline()).decode().strip()


def cpu_of(pid: int) -> Callable[[], float]:
    """Return what tells how many CPU seconds a process has used."""
    process = psutil.Process(pid)

    def used() -> float:
        times = process.cpu_times()
        return times.user + times.system

    return used


async def main() -> None:
    """Measure and print."""
    here = Path(__file__).parent
    floor, floor_port = await start(sys.executable, "-m", "bench.floor")
    with tempfile.TemporaryDirectory() as data:
        options = ("--port", "0", "--workers", "1", "--data-dir", data)
        cluster, ready = await start(
            sys.executable, "-m", "socketcluster", "run", str(here / "controller.py"), *options
        )
        try:
            port = int(ready.rpartition(":")[2])
            worker = next(
                child for child in psutil.Process(cluster.pid).children() if "socketcluster_worker" in child.cmdline()
            )
            servers = {"bare asyncio echo": (int(floor_port), FLOOR, cpu_of(floor.pid))}
            servers |= {name: (port, dialect, cpu_of(worker.pid)) for name, dialect in DIALECTS.items()}
            figures: dict[str, list[tuple[float, float]]] = {name: [] for name in servers}
            for _ in range(ROUNDS):
                for name, (where, dialect, cpu) in servers.items():
                    figures[name].append(await Load(where, dialect, CONNECTIONS).run(SECONDS, cpu))
            report(figures)
        finally:
            for process in (cluster, floor):
                process.terminate()
                await process.wait()


def report(figures: dict[str, list[tuple[float, float]]]) -> None:
    """Print each server's cost in the median round and in the best, and the ratios to the floor's."""
    print(f"{CONNECTIONS} connections, one request at a time each, {ROUNDS} rounds of {SECONDS:g} s; server CPU")  # noqa: T201
    print(f"{'':28} {'median':>10} {'ratio':>6} {'best':>10} {'ratio':>6} {'requests/s':>12}")  # noqa: T201
    floor = [cost for cost, _ in figures["bare asyncio echo"]]
    for name, rounds in figures.items():
        costs = [cost for cost, _ in rounds]
        ratio = statistics.median(cost / base for cost, base in zip(costs, floor, strict=True))
        middle, best, rate = statistics.median(costs), min(costs), statistics.median(rate for _, rate in rounds)
        print(  # noqa: T201
            f"{name:28} {middle * 1e6:7.1f} µs {ratio:6.2f} {best * 1e6:7.1f} µs {best / min(floor):6.2f} {rate:12,.0f}"
        )


if __name__ == "__main__":
    uvloop.run(main())
