"""The stores under test, with their disk, their clocks and their Valkey: all that faults are done to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from support.machine import disk
from support.store.processes import NAMES, SECRET
from support.store.shifted import Shift
from support.store.valkey import Cluster, Server

TESTS = Path(__file__).parents[1]
HANG_TIMEOUT = 1.0
"""Seconds; the shortest that a store allows."""
VALKEY_TIMEOUT = 2.0
MEMORY, MEMORY_NEEDED = Path("/dev/shm"), 4 << 30  # noqa: S108  # the folder in it has a name of its own
"""Where Valkey's data is, if there is so much room."""
RESTART_PAUSE = 0.5
"""Seconds after which a store that ended by itself is started again, as a launcher does."""
DISK, ENOUGH = "1500m", "8g"
HISTORY = "kept*: 100000, 86400, 1000000000; short*: 20, 86400"
"""What channels keep; the others nothing."""


@dataclass(frozen=True)
class Setting:
    """What the stores are to be like.

    Attributes:
        engine: ``lmdb``, ``valkey`` (one server), or ``valkey-cluster`` (three, each with a replica).
        fsync: as the option.
        session_timeout: as the option, seconds.
        replicas: that must have a write, of a Cluster.
        small_disk: may the disk be filled?
    """

    engine: str = "lmdb"
    fsync: str = "everysec"
    session_timeout: float = 1200.0
    replicas: int = 1
    small_disk: bool = False


@dataclass
class _Store:
    """A store process, and what becomes of it."""

    name: str
    shift: Shift
    boot_id: Path
    process: asyncio.subprocess.Process | None = None
    wanted: bool = False
    supervisor: asyncio.Task[None] | None = None


class Stores:
    """Three stores; an asynchronous context manager that leaves nothing behind.

    Args:
        setting: what they are like.
        say: is told what happens.
    """

    def __init__(self, setting: Setting, say: Callable[[str], None]) -> None:
        self.setting = setting
        self._say = say
        self._folder = Path()
        self._stack = contextlib.AsyncExitStack()
        self._stores: dict[str, _Store] = {}
        self._disk: disk.Disk | None = None
        self.valkey: Server | Cluster | None = None

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            self._folder = Path(tempfile.mkdtemp(prefix="sc", dir="/tmp"))  # Unix sockets have short paths
            stack.callback(shutil.rmtree, self._folder)
            if self.setting.small_disk:
                self._disk = stack.enter_context(disk.small_disk(self._folder / "data", DISK))
            if self.setting.engine != "lmdb":
                await self._start_valkey(stack)
            for name in NAMES:
                boot_id = self._folder / f"boot-{name}"
                boot_id.write_text("a machine" if self.setting.engine == "lmdb" else f"the machine of {name}")
                self._stores[name] = _Store(name, Shift(self._folder / f"clock-{name}"), boot_id)
                self.shift(name, 0)
                stack.callback(self._stores[name].shift.close)
            stack.push_async_callback(self._end)
            for name in NAMES:
                await self.start(name)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def addresses(self) -> list[str]:
        """Where workers link to."""
        return [f"unix:{self._folder}/{name}" for name in NAMES]

    async def start(self, name: str) -> None:
        """Have a store run, once it has ended, and again whenever it ends by itself."""
        store = self._stores[name]
        while not store.wanted and store.supervisor is not None and not store.supervisor.done():
            await asyncio.wait({store.supervisor})  # another step is having it end: there would be two of it
        if not store.wanted:
            store.wanted = True
            store.supervisor = asyncio.create_task(self._supervise(store), name=f"store {name}")

    async def stop(self, name: str, how: signal.Signals) -> None:
        """Have a store end, and return when it has."""
        store = self._stores[name]
        store.wanted = False
        self.signal(name, how)
        if store.supervisor is not None:
            await store.supervisor

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a store a signal, if it runs."""
        process = self._stores[name].process
        if process is not None and process.returncode is None:
            process.send_signal(number)

    def shift(self, name: str, wall: float) -> None:
        """Set the time of day of a store's machine."""
        self._stores[name].shift.set(wall, self._uptime(name))

    async def fill_disk(self) -> None:
        """Leave no room on the disk."""
        await asyncio.to_thread(self._fill)

    def free_disk(self) -> None:
        """Make room again."""
        (self._folder / "data" / "filling").unlink(missing_ok=True)

    def mend(self) -> None:
        """Have enough of all there is: a small disk may be full of data."""
        if self._disk is not None:
            self._disk.grow(ENOUGH)

    def log_of(self, name: str) -> str:
        """Return what a store has logged."""
        path = self._folder / f"log-{name}"
        return path.read_text(errors="replace") if path.exists() else ""

    def _uptime(self, name: str) -> float:
        """Return how much longer a store's machine runs than this one, which the stores of ``lmdb`` share."""
        return 0 if self.setting.engine == "lmdb" else 100_000.0 * NAMES.index(name)

    def _fill(self) -> None:
        with (self._folder / "data" / "filling").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            for size in (1 << 20, 1 << 12):
                with contextlib.suppress(OSError):
                    while file.write(bytes(size)) == size:
                        pass

    async def _supervise(self, store: _Store) -> None:
        while store.wanted:
            with (self._folder / f"log-{store.name}").open("ab") as log:
                store.process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "support.store.shifted"),
                    *(str(self._folder / f"clock-{store.name}"), str(store.boot_id)),
                    env={**os.environ, **self._environment(store.name)},
                    stdout=log,
                    stderr=log,
                )
            if not store.wanted:  # it was to end before it had begun
                store.process.kill()
            status = await store.process.wait()
            if store.wanted:
                self._say(f"store {store.name} ended by itself, status {status}")
                await asyncio.sleep(RESTART_PAUSE)

    def _environment(self, name: str) -> dict[str, str]:
        setting = self.setting
        options = {
            "listen": f"unix:{self._folder}/{name}",
            "name": name,
            "secret": SECRET,
            "data_dir": str(self._folder / "data"),
            "parent": str(os.getpid()),
            "store_hang_timeout": str(HANG_TIMEOUT),
            "session_timeout": str(setting.session_timeout),
            "link_grace": "1",
            "fsync": setting.fsync,
            "channel_history": HISTORY,
            "engine": "lmdb" if setting.engine == "lmdb" else "valkey",
        }
        if self.valkey is not None:
            options |= {"valkey_url": self.valkey.url, "valkey_timeout": str(VALKEY_TIMEOUT)}
        if isinstance(self.valkey, Cluster):
            options["valkey_wait_replicas"] = str(setting.replicas)
        environment = {f"SOCKETCLUSTER_{name.upper()}": value for name, value in options.items()}
        path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
        return environment | {"PYTHONPATH": path, "NOTIFY_SOCKET": f"{self._folder}/nobody"}

    async def _start_valkey(self, stack: contextlib.AsyncExitStack) -> None:
        folder = self._memory(stack) / "valkey"
        if self.setting.engine == "valkey":
            self.valkey = Server(folder, "--appendfsync", "always")
        else:
            self.valkey = Cluster(folder, "--appendfsync", "always", replicas=True)
        stack.callback(self.valkey.end)
        await asyncio.to_thread(self.valkey.start)

    def _memory(self, stack: contextlib.AsyncExitStack) -> Path:
        """Return a folder in which syncs cost nothing: each write is synced there, as a kill must not lose any."""
        if not MEMORY.is_dir() or shutil.disk_usage(MEMORY).free < MEMORY_NEEDED:
            return self._folder
        folder = Path(tempfile.mkdtemp(prefix="sc", dir=MEMORY))
        stack.callback(shutil.rmtree, folder)
        return folder

    async def _end(self) -> None:
        for name in NAMES:
            await self.stop(name, signal.SIGKILL)
