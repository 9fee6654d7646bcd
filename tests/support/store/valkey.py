"""Valkey or Redis servers on loopback, single or as a Cluster, each a process with a folder of its own."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from secrets import token_hex

from redis import Redis
from redis.exceptions import RedisError

from socketcluster_store.engines.valkey.engine import ValkeyEngine
from socketcluster_store.engines.valkey.servers import Servers
from socketcluster_store.executor import ExecutorOptions
from support.network.ports import free_port

SERVERS = ("valkey-server", "redis-server")
SLOTS = 16384
LONGEST_WAIT = 90.0
"""Seconds that servers have to become a Cluster: a test that hangs is ended, and would leave them behind."""


def program() -> str | None:
    """Return what is installed."""
    return next(filter(None, map(shutil.which, SERVERS)), None)


class Server:
    """A server; its data outlives it, as ``appendonly`` promises."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.options = options
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"valkey://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and return when it serves."""
        found = program()
        assert found is not None
        self._process = subprocess.Popen(
            [
                *(("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()),  # a run may end in os._exit
                *(found, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", ""),
                *("--appendonly", "yes", "--appendfsync", "everysec", "--loglevel", "warning", "--daemonize", "no"),
                *self.options,
            ],
            stdout=subprocess.DEVNULL,
        )
        while not self.serves():
            assert self._process.poll() is None, f"{found} ended with status {self._process.returncode}"
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.02)

    def serves(self) -> bool:
        """Does it answer?"""
        with contextlib.suppress(RedisError):
            return bool(self.ask("PING"))
        return False

    def ask(self, *command: object) -> object:
        """Send it a command."""
        with Redis(port=self.port, protocol=2) as client:
            return client.execute_command(*command)

    def clear(self) -> None:
        """Remove all that is stored."""
        self.ask("FLUSHALL")

    def send(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End it, if it runs."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.send_signal(signal.SIGCONT)
            self._process.wait()
            self._process = None


class Cluster:
    """A Cluster of three servers, and of one replica for each if asked for."""

    def __init__(self, folder: Path, *more: str, replicas: bool = False) -> None:
        # A busy machine's servers are silent for a while; only what is to fail over has to be missed soon.
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000" if replicas else "15000", *more)
        self.primaries = [Server(folder / f"primary{number}", *options) for number in range(3)]
        self.replicas = [Server(folder / f"replica{number}", *options) for number in range(3)] if replicas else []

    @property
    def url(self) -> str:
        """Where two of its servers are."""
        return f"valkey://127.0.0.1:{self.primaries[1].port},127.0.0.1:{self.primaries[0].port}"

    def start(self) -> None:
        """Start the servers, make them one, and return when it serves."""
        everyone = [*self.primaries, *self.replicas]
        for server in everyone:
            server.start()
        bounds = [SLOTS * part // 3 for part in range(4)]
        for number, server in enumerate(self.primaries):
            server.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            server.ask("CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
        for server in everyone[1:]:
            server.ask("CLUSTER", "MEET", "127.0.0.1", everyone[0].port)
        _until(lambda: all(_info(server, "cluster_known_nodes") == str(len(everyone)) for server in everyone))
        for primary, replica in zip(self.primaries, self.replicas, strict=False):
            name = primary.ask("CLUSTER", "MYID")
            _until(partial(_replicates, replica, name))
        _until(lambda: all(_info(server, "cluster_state") == "ok" for server in everyone))
        _until(lambda: all(map(_synced, self.replicas)))

    def until_failed_over(self, number: int) -> None:
        """Return when a replica has taken over from a primary."""
        self.until_primary(self.replicas[number])

    def until_primary(self, server: Server) -> None:
        """Return when a server is a primary."""
        _until(lambda: _role(server) == b"master")

    def pair(self, number: int) -> tuple[Server, Server]:
        """Return which of two is the primary by now, and the other one; they run."""
        pair = self.primaries[number], self.replicas[number]
        return pair if _role(pair[0]) == b"master" else (pair[1], pair[0])

    def fail_over(self, number: int) -> None:
        """Have a primary and its replica change places, which loses nothing, and return when they have."""
        _primary, replica = self.pair(number)
        replica.ask("CLUSTER", "FAILOVER")
        _until(lambda: _role(replica) == b"master")

    def until_whole(self) -> None:
        """Return when each primary has its replica again."""
        _until(lambda: all(_synced(self.pair(number)[1]) for number in range(3)))
        _until(lambda: all(_info(server, "cluster_state") == "ok" for server in [*self.primaries, *self.replicas]))

    def clear(self) -> None:
        """Remove all that is stored."""
        for server in [*self.primaries, *self.replicas]:
            if _role(server) == b"master":
                server.clear()

    def end(self) -> None:
        """End it."""
        for server in [*self.primaries, *self.replicas]:
            server.end()


def until_replicated(primary: Server, replica: Server) -> None:
    """Return when a replica has what its primary has."""

    def has_all() -> bool:
        wanted, found = primary.ask("ROLE"), replica.ask("ROLE")
        assert isinstance(wanted, list)
        assert isinstance(found, list)
        return bool(found[0] == b"slave" and found[3] == b"connected" and found[4] >= wanted[1])

    _until(has_all)


def _info(server: Server, name: str) -> str:
    """Return a field of CLUSTER INFO."""
    text = server.ask("CLUSTER", "INFO")
    assert isinstance(text, bytes)
    return next(line.partition(":")[2] for line in text.decode().splitlines() if line.startswith(f"{name}:"))


def _replicates(replica: Server, primary: object) -> bool:
    try:
        replica.ask("CLUSTER", "REPLICATE", primary)
    except RedisError:  # it does not know it yet
        return False
    return True


def _synced(replica: Server) -> bool:
    reply = replica.ask("ROLE")
    return isinstance(reply, list) and reply[0] == b"slave" and reply[3] == b"connected"


def _role(server: Server) -> object:
    try:
        reply = server.ask("ROLE")
    except RedisError:  # it is not there yet
        return None
    return reply[0] if isinstance(reply, list) else reply


def _until(true: Callable[[], bool]) -> None:
    """Ask until it is so: a server tells of none of this itself."""
    last = time.monotonic() + LONGEST_WAIT
    while not true():
        assert time.monotonic() < last, "the servers do not come together"
        time.sleep(0.02)


@contextlib.asynccontextmanager
async def valkey_engine(
    server: Server | Cluster,
    options: ExecutorOptions,
    *,
    app_name: str = "",
    store_id: str = "one-1",
    timeout: float = 5,
    replicas: int = 0,
    allow_eviction: bool = False,
) -> AsyncIterator[ValkeyEngine]:
    """An engine that is connected, of an application of its own if none is named."""
    servers = Servers(server.url, timeout)
    engine = ValkeyEngine(
        servers,
        options,
        app_name=app_name or token_hex(8),
        store_id=store_id,
        replicas=replicas,
        allow_eviction=allow_eviction,
    )
    await engine.connect()
    try:
        yield engine
    finally:
        await engine.disconnect()


def valkey_options(servers: Server | Cluster) -> dict[str, str]:
    """Return the environment of a store with the engine; nothing is stored."""
    servers.clear()
    return {"SOCKETCLUSTER_ENGINE": "valkey", "SOCKETCLUSTER_VALKEY_URL": servers.url}
