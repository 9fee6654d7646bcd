"""What a client costs the balancer, beside HAProxy: ``make bench-balancer``, or ``python -m bench.balancer --help``.

Everything runs on 127.0.0.1: a cluster as users start it, with real workers and a real store, and clients in processes
of their own, because a process has few descriptors on many machines. CPU time and memory are those of the balancers'
processes alone, as the kernel counts them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import psutil
import uvloop
from support.cluster.local import LocalCluster
from support.network import certificates

from bench.acknowledge import DIALECTS
from bench.load import Load
from bench.peers.running import listening
from bench.servers import free_port
from socketcluster_runtime.sockets import descriptors

HERE = Path(__file__).parent
PER_PROCESS = 14_000
"""Clients of one process: its descriptors, and the ports of its address, are limited."""
CONNECTIONS = 200
"""Connections of a load."""
QUIET = ("--heartbeat-interval", "3600", "--heartbeat-timeout", "3600")
"""Idle clients are to be idle."""
DIALECT = DIALECTS["SocketCluster"]
HAPROXY = """
global
    maxconn {limit}
    nbthread 1
defaults
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout tunnel 1h
listen tcp
    mode tcp
    bind 127.0.0.1:{tcp}
    server worker 127.0.0.1:{worker}
listen http
    mode http
    bind 127.0.0.1:{http}
    server worker 127.0.0.1:{worker}
listen tls
    mode http
    bind 127.0.0.1:{tls} ssl crt {certificate}
    server worker 127.0.0.1:{worker}
"""


class Opened(NamedTuple):
    """What opening many clients took of the balancers."""

    clients: int
    errors: dict[str, int]
    lost: int
    cpu: float
    """CPU seconds a client."""
    memory: float
    """Bytes a client that is there."""
    descriptors: int
    """How many more descriptors the balancers have."""


def cpu(pids: Sequence[int]) -> float:
    """Return the CPU seconds that processes have used, to the nanosecond."""
    threads = (thread for pid in pids for thread in Path(f"/proc/{pid}/task").iterdir())
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def memory(pids: Sequence[int]) -> int:
    """Return the resident bytes of processes that are no mapped file's."""
    lines = (line for pid in pids for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def open_descriptors(pids: Sequence[int]) -> int:
    """Return how many descriptors processes have."""
    return sum(psutil.Process(pid).num_fds() for pid in pids)


@asynccontextmanager
async def idle(port: int, count: int, authority: Path | None = None) -> AsyncIterator[dict[str, Any]]:
    """Be ``count`` idle clients; yields what they say at first, to which ``lost`` is added in the end."""
    shares = [min(PER_PROCESS, count - start) for start in range(0, count, PER_PROCESS)]
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.idle", str(port), str(share), f"127.0.1.{number}"),
            *([] if authority is None else [str(authority)]),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=HERE.parent,
        )
        for number, share in enumerate(shares, 1)
    ]
    said: dict[str, Any] = {"open": 0, "errors": {}, "lost": 0}
    try:
        for process in processes:
            one = json.loads(await process.stdout.readline())  # type: ignore[union-attr]  # it is a pipe
            said["open"] += one["open"]
            for text, times in one["errors"].items():
                said["errors"][text] = said["errors"].get(text, 0) + times
        yield said
    finally:
        for process in processes:
            output, _ = await process.communicate(b"")  # which ends its standard input
            said["lost"] += json.loads(output)["lost"] if output else 0


async def open_many(port: int, pids: Sequence[int], count: int, authority: Path | None = None) -> Opened:
    """Open ``count`` clients, and return what that took."""
    async with idle(port, min(100, count), authority):  # what is made once is made now
        pass
    used, held, files = cpu(pids), memory(pids), open_descriptors(pids)
    async with idle(port, count, authority) as said:
        used, held, files = cpu(pids) - used, memory(pids) - held, open_descriptors(pids) - files
    clients = max(said["open"], 1)
    return Opened(said["open"], said["errors"], said["lost"], used / clients, held / clients, files)


async def event(port: int, pids: Sequence[int], seconds: float, tls: ssl.SSLContext | None = None) -> float:
    """Return the CPU seconds that an acknowledged event takes of the balancers."""
    cost, _ = await Load(port, DIALECT, CONNECTIONS, tls).run(seconds, lambda: cpu(pids))
    return cost


@asynccontextmanager
async def cluster(*options: str, workers: str) -> AsyncIterator[tuple[int, list[int], int]]:
    """Run a cluster; yields its port, the balancers' process ids, and the port of one worker."""
    with tempfile.TemporaryDirectory() as folder:
        made = LocalCluster(HERE / "controller.py", Path(folder) / "data", *QUIET, *options, workers=workers)
        async with made:
            names = await made.worker_names()
            if len(names) > 1:  # with a single one, it is served as soon as the cluster says that it is ready
                await made.serving_workers(at_least=len(names))
            pids = [child.pid for child in made.children("balancer")]
            port = (await made.worker_url(names[0])).rpartition(":")[2]
            yield int(made.url.rpartition(":")[2]), pids, int(port)


@asynccontextmanager
async def haproxy(worker: int, certificate: Path, folder: Path) -> AsyncIterator[tuple[dict[str, int], list[int]]]:
    """Run HAProxy in front of a worker; yields its ports by kind, and its process id."""
    ports = {kind: free_port() for kind in ("tcp", "http", "tls")}
    limit = descriptors.raise_limit() // 2 - 100
    config = folder / "haproxy.cfg"
    config.write_text(HAPROXY.format(worker=worker, certificate=certificate, limit=limit, **ports))
    process = await asyncio.create_subprocess_exec(
        "haproxy", "-db", "-f", str(config), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        for port in ports.values():
            await listening(port, process)
        yield ports, [process.pid]
    finally:
        process.terminate()
        await process.wait()


def report(name: str, opened: Opened) -> None:
    """Print what opening took."""
    say(
        f"  {name:34} {opened.clients:7,} clients {sum(opened.errors.values()) + opened.lost:4} errors "
        f"{opened.cpu * 1e6:7.1f} µs CPU a connection {opened.memory / 1024:7.2f} KiB each {opened.descriptors:7,} "
        "descriptors"
    )
    for text, times in opened.errors.items():
        say(f"    {times} times {text}")


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)  # noqa: T201


async def handed_over(clients: int, seconds: float) -> None:
    """Measure clients that are handed over: one balancer, then three."""
    say(f"Handed over, idle ({CONNECTIONS} connections for events):")
    for balancers, count in ((1, clients), (3, round(clients * 20 / 9))):
        workers = str(max(2, -(-count // PER_PROCESS)))
        async with cluster("--balancers", str(balancers), workers=workers) as (port, pids, _):
            if balancers == 1:
                say(f"  {'an acknowledged event':34} {await event(port, pids, seconds) * 1e6:7.2f} µs CPU")
            name = f"{balancers} balancer{'s' * (balancers > 1)}, {workers} workers"
            report(name, await open_many(port, pids, count))


async def relayed(clients: int, seconds: float, rounds: int) -> None:
    """Measure clients whose bytes are copied, in turns with HAProxy in front of the same worker."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = certificates.make(folder, "bench")
        authority, context = files.cert, ssl.create_default_context(cafile=files.cert)
        for secure in (False, True):
            tls = ("--tls-cert", str(files.cert), "--tls-key", str(files.key)) if secure else ()
            say(f"Bytes copied, {'TLS' if secure else 'plain'}:")
            async with cluster("--handoff", "false", *tls, workers="1") as (port, pids, worker):
                own = (port, pids)
                if not shutil.which("haproxy"):
                    say("  HAProxy is not installed (apt-get install haproxy): nothing to compare with")
                    await _turns({"balancer": own}, clients, seconds, rounds, authority if secure else None, context)
                    continue
                async with haproxy(worker, files.both, folder) as (ports, its):
                    others = {"tls": "HAProxy, HTTP"} if secure else {"tcp": "HAProxy, TCP", "http": "HAProxy, HTTP"}
                    servers = {"balancer": own} | {text: (ports[kind], its) for kind, text in others.items()}
                    await _turns(servers, clients, seconds, rounds, authority if secure else None, context)


async def _turns(
    servers: dict[str, tuple[int, list[int]]],
    clients: int,
    seconds: float,
    rounds: int,
    authority: Path | None,
    context: ssl.SSLContext,
) -> None:
    for name, (port, pids) in servers.items():
        report(name, await open_many(port, pids, clients, authority))
    tls = None if authority is None else context
    figures: dict[str, list[float]] = {name: [] for name in servers}
    for _ in range(rounds):
        for name, (port, pids) in servers.items():
            figures[name].append(await event(port, pids, seconds, tls))
    for name, costs in figures.items():
        middle, best = median(costs) * 1e6, min(costs) * 1e6
        say(f"  {name:34} an acknowledged event: {middle:6.1f} µs CPU in the median round, {best:6.1f} in the best")


async def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench.balancer", description="What a client costs the balancer.")
    parser.add_argument("--clients", type=int, default=18_000, help="idle ones through one balancer; default: 18000")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each round of events; default: 1.5")
    parser.add_argument("--rounds", type=int, default=6, help="of events, the servers in turn; default: 6")
    parser.add_argument("--only", choices=("handover", "relay"), help="one half")
    options = parser.parse_args()
    descriptors.raise_limit()
    say(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, {descriptors.raise_limit():,} descriptors a process")
    if options.only != "relay":
        await handed_over(options.clients, options.seconds)
    if options.only != "handover":
        await relayed(min(options.clients, 4000), options.seconds, options.rounds)


if __name__ == "__main__":
    uvloop.run(main())
