"""Keeps one process running: starts it, hears that it is ready, starts it again when it dies, stops it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
from collections.abc import Callable

from socketcluster.errors import ChildFailedError
from socketcluster.plan import ChildSpec
from socketcluster_runtime.errors import EX_CONFIG
from socketcluster_runtime.logs.logging import get_logger

log = get_logger(__name__)

FIRST_DELAY = 0.2
"""Seconds before the second restart in a row; the first comes at once."""
LAST_DELAY = 10.0
"""Seconds that a delay grows to, doubling."""
GOOD_AFTER = 10.0
"""Seconds that a process must have been ready for its next death to count as the first."""


class Backoff:
    """How long to wait before a process is started again."""

    def __init__(self) -> None:
        self._deaths = 0

    def next_delay(self, served: float) -> float:
        """Return the delay in seconds after a death; ``served`` is how many seconds the process had been ready."""
        if served >= GOOD_AFTER:
            self._deaths = 0
        self._deaths += 1
        if self._deaths == 1:
            return 0.0
        longest: float = min(LAST_DELAY, FIRST_DELAY * 2 ** min(self._deaths - 2, 10))
        return longest * random.uniform(0.75, 1.0)  # noqa: S311  # spreads restarts, guards nothing


class Supervisor:
    """One process of the cluster. ``run`` is its life; ``stop`` and ``kill`` end it."""

    def __init__(self, spec: ChildSpec, on_ready: Callable[[], None]) -> None:
        self.name = spec.name
        self._spec = spec
        self._on_ready = on_ready
        self._process: subprocess.Popen[bytes] | None = None
        self._ready_since: float | None = None
        self._served = False
        self._backoff = Backoff()
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process is not None else None

    def ready(self) -> None:
        """Note that the process said that it is ready."""
        self._ready_since = asyncio.get_running_loop().time()
        log.debug("ready", process=self.name, pid=self.pid)
        self._served = True
        self._on_ready()

    def reload(self) -> None:
        """Have the process read its files again; while it still begins, the signal waits until it listens to it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)

    async def run(self) -> None:
        """Keep the process running until ``stop`` or ``kill``.

        Raises:
            ChildFailedError: it ended with the status that says that no restart will help, and has never been ready:
                then whoever starts the cluster looks on. Later, it may be a file that is mended while others serve.
        """
        try:
            while not self._stopping.is_set():
                how = await self._run_once()
                if not self._stopping.is_set():
                    await self._wait_before_restart(how)
        finally:
            self._ended.set()

    async def stop(self, timeout: float) -> None:
        """Ask the process to end and wait until it has; kill it after ``timeout`` seconds."""
        self._stopping.set()
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(timeout):
                await self._ended.wait()
        except TimeoutError:
            log.warning("killed: it did not stop in time", process=self.name, seconds=timeout)
            self.kill()
            await self._ended.wait()

    def kill(self) -> None:
        """Kill the process and every other of its group, and do not start it again."""
        self._stopping.set()
        if self._process is not None:
            _kill_group(self._process.pid)

    async def _run_once(self) -> str:
        """Start the process and wait for its death; return how it died."""
        try:
            process = self._start()
        except OSError as error:  # out of processes or memory: that may pass
            return f"could not be started: {error}"
        self._process = process
        log.debug("started", process=self.name, pid=process.pid)
        try:
            await _death(process.pid)
        finally:
            _kill_group(process.pid)  # what it started itself; its id cannot be another's before it is waited for
            status = process.wait()
            self._process = None
        if status == EX_CONFIG and not self._served:
            raise ChildFailedError(f"{self.name} cannot run, its own message says why (status {EX_CONFIG})")
        return f"status {status}" if status >= 0 else _signal_name(-status)

    def _start(self) -> subprocess.Popen[bytes]:
        self._ready_since = None
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP,))  # a child begins with it blocked
        try:
            # in a session of its own, so that Ctrl-C on the terminal reaches the launcher alone
            return subprocess.Popen(  # noqa: S603  # the command is the launcher's own
                self._spec.argv,
                env=self._spec.environ,
                pass_fds=self._spec.pass_fds,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    async def _wait_before_restart(self, how: str) -> None:
        now = asyncio.get_running_loop().time()
        delay = self._backoff.next_delay(0.0 if self._ready_since is None else now - self._ready_since)
        log.warning("died", process=self.name, how=how, restart_in=round(delay, 2))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._stopping.wait()


async def _death(pid: int) -> None:
    """Wait until a child process is dead, without collecting its status."""
    loop = asyncio.get_running_loop()
    dead = asyncio.Event()
    descriptor = os.pidfd_open(pid)
    loop.add_reader(descriptor, dead.set)
    try:
        await dead.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _signal_name(number: int) -> str:
    try:
        return f"signal {signal.Signals(number).name}"
    except ValueError:  # a real-time signal
        return f"signal {number}"
