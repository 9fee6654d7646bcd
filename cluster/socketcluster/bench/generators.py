"""The processes that make load, together: started, begun at the same moment, and heard."""

from __future__ import annotations

import asyncio
import sys
from time import monotonic_ns
from types import TracebackType
from typing import Self

import msgspec

from socketcluster.bench.generator import Assignment, Begin
from socketcluster.bench.plan import Mode, Plan
from socketcluster.bench.tally import Snapshot, Tally, added

HEAD_START = 0.1
"""Seconds from the word to begin until all begin."""
LINE_BYTES = 8 * 1024 * 1024


class GeneratorError(Exception):
    """A generator ended on its own."""


class Generators:
    """All processes of a run; leaving the context ends them.

    Args:
        plan: what they do together.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.phase = "connecting"
        """``connecting``, ``running`` or ``done``."""
        self._latest: list[Snapshot] = [Snapshot("connecting", Tally()) for _ in range(plan.processes)]
        self._processes: list[asyncio.subprocess.Process] = []
        self._listening: list[asyncio.Task[None]] = []
        self._heard = asyncio.Event()
        self.stopped = asyncio.Event()
        """Set by who wants nothing more to be sent; and again, not to wait for what was."""

    @property
    def tally(self) -> Tally:
        """What all have counted."""
        return added([snapshot.tally for snapshot in self._latest])

    @property
    def fatal(self) -> str:
        """Why it makes no sense to go on; empty: it does."""
        return next((snapshot.fatal for snapshot in self._latest if snapshot.fatal), "")

    @property
    def expected(self) -> int:
        """How many deliveries there are to be of what was published so far."""
        tally = self.tally
        return tally.answered * tally.joined if self.plan.mode is Mode.BROADCAST else 0

    async def __aenter__(self) -> Self:
        for index in range(self.plan.processes):
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-P", "-m", "socketcluster.bench.generator"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=LINE_BYTES,
                start_new_session=True,  # the terminal's Ctrl-C is for the command, which ends them
            )
            self._processes.append(process)
            self._write(process, msgspec.json.encode(Assignment(self.plan, index)))
            self._listening.append(asyncio.create_task(self._listen(index, process)))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.close()
        try:
            async with asyncio.timeout(5):
                await asyncio.gather(*(process.wait() for process in self._processes))
        except TimeoutError:
            for process in self._processes:
                if process.returncode is None:
                    process.kill()
        await asyncio.gather(*self._listening, return_exceptions=True)

    async def run(self) -> None:
        """Have them connect, begin, and come to an end; what they counted is in ``tally``.

        Raises:
            GeneratorError: one of them failed.
        """
        await self._all("ready")
        if self.fatal or self.stopped.is_set():
            return
        self.phase = "running"
        begin = msgspec.json.encode(Begin(monotonic_ns() + round(HEAD_START * 1e9)))
        for process in self._processes:
            self._write(process, begin)
        await self._all("done")
        if self.stopped.is_set():  # what is under way still counts; who asks a second time does without
            self.stopped.clear()
            for process in self._processes:
                self._write(process, b"")
            await self._all("done")
        if self.plan.mode is Mode.BROADCAST and not self.stopped.is_set():
            await self._deliveries()
        self.phase = "done"

    async def _all(self, phase: str) -> None:
        """Wait until all are in a phase, or have to stop."""
        while not self.stopped.is_set() and any(
            snapshot.phase != phase and not snapshot.fatal for snapshot in self._latest
        ):
            self._heard.clear()
            for listening in self._listening:
                if listening.done():
                    listening.result()
                    raise GeneratorError("a process that makes load ended; what it said is above")
            await self._next()

    async def _deliveries(self) -> None:
        """Wait for those that are still on their way, as long as some come."""
        loop = asyncio.get_running_loop()
        came, since = -1, loop.time()
        while self.tally.delivered < self.expected and not self.stopped.is_set():
            if self.tally.delivered != came:
                came, since = self.tally.delivered, loop.time()
            elif loop.time() - since > self.plan.timeout:
                return
            self._heard.clear()
            await self._next()

    async def _next(self) -> None:
        stopped = asyncio.create_task(self.stopped.wait())
        heard = asyncio.create_task(self._heard.wait())
        await asyncio.wait({stopped, heard}, return_when=asyncio.FIRST_COMPLETED, timeout=1.0)
        stopped.cancel()
        heard.cancel()

    async def _listen(self, index: int, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None  # noqa: S101  # it is a pipe
        while line := await process.stdout.readline():
            self._latest[index] = msgspec.json.decode(line, type=Snapshot)
            self._heard.set()
        self._heard.set()

    @staticmethod
    def _write(process: asyncio.subprocess.Process, line: bytes) -> None:
        if process.stdin is not None:
            process.stdin.write(line + b"\n")
