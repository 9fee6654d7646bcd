"""A server that runs: its processes, what they use, its end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

START_SECONDS = 60
STOP_SECONDS = 30


def cpu(pids: Sequence[int]) -> float:
    """Return the CPU seconds that processes have used, to the nanosecond, as the kernel counts them."""
    total = 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it, or a thread, has ended
            for thread in Path(f"/proc/{pid}/task").iterdir():
                total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9


def proportional(pids: Sequence[int]) -> int:
    """Return the bytes that processes hold, where each page that several share counts for its share (PSS)."""
    total = 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


class Running:
    """A server.

    Args:
        port: where it serves, on 127.0.0.1.
        processes: those that were started; their children count too.
        group: says of a process's command line what its part in the server is.
    """

    def __init__(
        self, port: int, processes: Sequence[asyncio.subprocess.Process], group: Callable[[str], str] = lambda _: "all"
    ) -> None:
        self.port = port
        self._processes = processes
        self._group = group

    def pids(self) -> dict[str, list[int]]:
        """Return the ids of its processes, by their parts."""
        found: dict[str, list[int]] = {}
        for process in self._processes:
            if process.returncode is None:
                root = psutil.Process(process.pid)
                for one in [root, *root.children(recursive=True)]:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        found.setdefault(self._group(" ".join(one.cmdline())), []).append(one.pid)
        return found

    def cpu(self) -> float:
        """Return the CPU seconds that all processes have used."""
        return cpu([pid for pids in self.pids().values() for pid in pids])

    def cpu_by_part(self) -> Mapping[str, float]:
        """Return the same, by their parts."""
        return {part: cpu(pids) for part, pids in self.pids().items()}

    def memory_by_part(self) -> Mapping[str, int]:
        """Return the bytes that they hold, by their parts."""
        return {part: proportional(pids) for part, pids in self.pids().items()}

    async def stop(self) -> None:
        """End it."""
        for process in reversed(self._processes):
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
                try:
                    async with asyncio.timeout(STOP_SECONDS):
                        await process.wait()
                except TimeoutError:
                    process.kill()
                    await process.wait()


async def listening(port: int, process: asyncio.subprocess.Process) -> None:
    """Return when a server accepts connections.

    Raises:
        RuntimeError: it has ended, or takes too long.
    """
    try:
        async with asyncio.timeout(START_SECONDS):
            while process.returncode is None:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except ConnectionRefusedError:
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    return
    except TimeoutError:
        raise RuntimeError(f"it does not listen after {START_SECONDS} s") from None
    raise RuntimeError(f"it ended with status {process.returncode}")
