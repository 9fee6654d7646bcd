"""The servers of a run: how each is started and configured, and what it can be measured at."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.peers.install import Peers
from bench.peers.running import START_SECONDS, Running, listening
from bench.servers import free_port

HERE = Path(__file__).parent
SOCKETIO, SOCKETCLUSTER = "here, Socket.IO", "here, SocketCluster"
SOCKETIO_NODE, SOCKETCLUSTER_NODE = "Socket.IO on Node", "SocketCluster on Node"
WS, FLOOR = "ws on Node", "C, epoll (the floor)"
PYTHON_SOCKETIO, UVICORN, CHANNELS = "python-socketio", "uvicorn, websockets", "Django Channels, Daphne"

EVENTS, FAN_OUT, TLS, MANY, SPANNING, SESSIONS = "events", "fan-out", "TLS", "many", "spanning", "sessions"
"""What a side can: acknowledge events, broadcast, TLS, serve by many processes, broadcast between these, sessions."""


@dataclass(frozen=True)
class Wanted:
    """How a server is to be started.

    Attributes:
        folder: for its data and its log.
        processes: that serve.
        fronts: balancers, of the servers that have some.
        certificate: files of a certificate and its key, for TLS.
        session_timeout: seconds that this server keeps the session of a client that has left.
    """

    folder: Path
    processes: int = 1
    fronts: int = 1
    certificate: tuple[Path, Path] | None = None
    session_timeout: float = 1200.0


@dataclass(frozen=True)
class Side:
    """A server to be measured.

    Attributes:
        name: for the report.
        key: by which options choose it.
        dialect: what its clients speak.
        can: what it is measured at.
        configuration: for the report, how it is configured.
        needs: the part of the peers that it is in.
        program: its file in this folder, or its module.
    """

    name: str
    key: str
    dialect: str
    can: frozenset[str]
    configuration: str
    needs: str | None = None
    program: str = ""

    def lack(self, peers: Peers) -> str | None:
        """Return why it cannot run here, if it cannot."""
        if self.needs in peers.lacks:
            return peers.lacks[self.needs]
        return "there is no redis-server here" if self.name == CHANNELS and not shutil.which("redis-server") else None

    async def start(self, peers: Peers, wanted: Wanted) -> Running:
        """Start it.

        Raises:
            RuntimeError: it does not serve; the text has the end of its log.
        """
        log = wanted.folder / "log"
        started: list[asyncio.subprocess.Process] = []
        try:
            if self.needs is None:
                return await _here(wanted, log, started)
            if self.needs == "python":
                return await self._python(peers, wanted, log, started)
            port = free_port()
            if self.needs == "floor":
                argv: list[str] = [str(peers.floor), str(port)]
            else:
                tls = [] if wanted.certificate is None else map(str, wanted.certificate)
                argv = ["node", str(HERE / self.program), str(port), str(wanted.processes), *tls]
            environ = {"NODE_PATH": str(peers.node), "NODE_ENV": "production"}
            await _spoken(await _spawn(argv, log, started, environ), "ready")
            return Running(port, started)
        except RuntimeError as error:
            for process in started:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
            raise RuntimeError(f"{self.name} did not start: {error}\n{log.read_text()[-2000:]}") from None

    async def _python(
        self, peers: Peers, wanted: Wanted, log: Path, started: list[asyncio.subprocess.Process]
    ) -> Running:
        port, environ = free_port(), {}
        if self.name == CHANNELS:
            redis = free_port()
            options = (
                "--port",
                str(redis),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
                "--loglevel",
                "warning",
            )
            await listening(redis, await _spawn(["redis-server", *options], log, started))
            environ["REDIS_URL"] = f"redis://127.0.0.1:{redis}"
            argv = ["-m", "daphne", "-v", "0", "-b", "127.0.0.1", "-p", str(port), "--no-server-name"]
            argv += ["--ping-interval", "3600", "--ping-timeout", "3600", "bench.peers.with_channels:application"]
        else:
            tls = [] if wanted.certificate is None else map(str, wanted.certificate)
            argv = ["-m", f"bench.peers.{self.program}", str(port), *tls]
        await listening(port, await _spawn([str(peers.python), *argv], log, started, environ))
        return Running(port, started, lambda command: "redis" if "redis-server" in command else "server")


async def _here(wanted: Wanted, log: Path, started: list[asyncio.subprocess.Process]) -> Running:
    options = {
        "--port": 0,
        "--workers": wanted.processes,
        "--balancers": wanted.fronts,
        "--stores": 1,
        "--data-dir": wanted.folder / "data",
        "--heartbeat-interval": 3600,
        "--heartbeat-timeout": 3600,
        "--session-timeout": wanted.session_timeout,
        "--max-channels-per-socket": 1_000_000,
    }
    if wanted.certificate is not None:
        options |= {"--tls-cert": wanted.certificate[0], "--tls-key": wanted.certificate[1]}
    argv = [sys.executable, "-m", "socketcluster", "run", str(HERE / "controller.py")]
    argv += [str(part) for option in options.items() for part in option]
    ready = await _spoken(await _spawn(argv, log, started), "ready ")
    return Running(int(ready.rpartition(":")[2]), started, _part)


def _part(command: str) -> str:
    parts = ("balancer", "worker", "store")
    return next((part for part in parts if f"socketcluster_{part}" in command), "launcher")


async def _spawn(
    argv: Sequence[str],
    log: Path,
    started: list[asyncio.subprocess.Process],
    environ: Mapping[str, str] | None = None,
) -> asyncio.subprocess.Process:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SOCKETCLUSTER_")}
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdout=asyncio.subprocess.PIPE,
            stderr=output,
            cwd=HERE.parents[1],
            env={**inherited, **(environ or {})},
        )
    started.append(process)
    return process


async def _spoken(process: asyncio.subprocess.Process, first: str) -> str:
    """Return the line by which a server says that it serves."""
    assert process.stdout is not None  # noqa: S101  # it is a pipe
    try:
        async with asyncio.timeout(START_SECONDS):
            line = (await process.stdout.readline()).decode().strip()
    except TimeoutError:
        raise RuntimeError(f"it says nothing for {START_SECONDS} s") from None
    if not line.startswith(first):
        raise RuntimeError(f"it said {line!r}")
    return line


OURS = frozenset({EVENTS, FAN_OUT, TLS, MANY, SPANNING, SESSIONS})
CLUSTER = "1 balancer, 1 store on LMDB, handlers registered on each socket; heartbeats once an hour, else the defaults"
SIDES = (
    Side(FLOOR, "floor", "floor", frozenset({EVENTS, FAN_OUT}), "cc -O2; no JSON, no TLS", "floor"),
    Side(
        WS, "ws", "plain", frozenset({EVENTS, FAN_OUT, TLS, MANY}), "with bufferutil; JSON of our own", "node", "ws.cjs"
    ),
    Side(
        SOCKETIO_NODE,
        "socketio-node",
        "socketio",
        frozenset({EVENTS, FAN_OUT, TLS, MANY, SPANNING}),
        "WebSocket only, with bufferutil, requests not kept; many processes: the cluster adapter",
        "node",
        "socketio.cjs",
    ),
    Side(
        SOCKETCLUSTER_NODE,
        "socketcluster-node",
        "socketcluster",
        frozenset({EVENTS, FAN_OUT, TLS, MANY}),
        "with bufferutil; its broker in the process",
        "node",
        "socketcluster.cjs",
    ),
    Side(
        PYTHON_SOCKETIO,
        "python-socketio",
        "socketio",
        frozenset({EVENTS, FAN_OUT, TLS}),
        "uvicorn with uvloop, httptools, websockets; WebSocket only",
        "python",
        "with_socketio",
    ),
    Side(
        UVICORN,
        "uvicorn",
        "plain",
        frozenset({EVENTS, FAN_OUT, TLS}),
        "uvloop, httptools; json, rooms of our own",
        "python",
        "with_uvicorn",
    ),
    Side(
        CHANNELS,
        "channels",
        "plain",
        frozenset({FAN_OUT}),
        "channels-redis with its pub/sub layer; redis-server without persistence is counted",
        "python",
    ),
    Side(SOCKETIO, "socketio", "socketio", OURS, CLUSTER),
    Side(SOCKETCLUSTER, "socketcluster", "socketcluster", OURS, CLUSTER),
)
