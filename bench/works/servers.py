"""Starts the servers of a run and the processes of the load generator, and ends them."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from support.network import certificates

from bench.drive.remote import GeneratorError, Health, Remote
from bench.peers.install import Peers
from bench.peers.running import Running
from bench.peers.side import SPANNING, Side, Wanted


class Servers:
    """What runs; an asynchronous context, at whose end nothing does.

    Args:
        peers: what is installed.
        keep: serve all works with the same few processes? That is no measurement any more, but takes a fraction of the
            time.
    """

    def __init__(self, peers: Peers, *, keep: bool) -> None:
        self._peers = peers
        self._keep = keep
        self._all = AsyncExitStack()
        self._numbers = itertools.count()
        self._kept: dict[tuple[object, ...], asyncio.Task[Running]] = {}
        self._remotes: dict[tuple[object, ...], Remote] = {}
        self._folder: Path
        self._certificate: tuple[Path, Path]

    async def __aenter__(self) -> Self:
        self._folder = Path(self._all.enter_context(tempfile.TemporaryDirectory()))
        files = certificates.make(self._folder, "bench")
        self._certificate = (files.cert, files.key)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        await self._all.aclose()

    async def running(self, stack: AsyncExitStack, side: Side, *, secure: bool = False, **wanted: Any) -> Running:
        """Start a server, which ends with the stack, or have one that is kept.

        Raises:
            RuntimeError: it does not serve.
        """
        if not self._keep:
            return await self._start(stack, side, secure=secure, **wanted)
        processes = 2 if SPANNING in side.can else min(2, wanted.get("processes", 1))
        key = (side.needs and side.key, secure, processes)  # both protocols of this server are those of one cluster
        if key not in self._kept:
            starting = self._start(self._all, side, secure=secure, processes=processes, fronts=processes)
            self._kept[key] = asyncio.create_task(starting)
        return await self._kept[key]

    async def _start(self, stack: AsyncExitStack, side: Side, *, secure: bool, **wanted: Any) -> Running:
        folder = self._folder / f"{next(self._numbers)}-{side.key}"
        folder.mkdir()
        certificate = self._certificate if secure else None
        running = await side.start(self._peers, Wanted(folder, certificate=certificate, **wanted))
        stack.push_async_callback(running.stop)
        return running

    async def remote(
        self, stack: AsyncExitStack, side: Side, port: int, number: int, health: Health, *, secure: bool
    ) -> Remote:
        """Start a process of the load generator, which ends with the stack, or have the one that is kept."""
        key = (side.key, port, number)
        remote = self._remotes.get(key)
        if remote is None:
            authority = self._certificate[0] if secure else None
            remote = Remote(side.dialect, port, next(self._numbers), authority)
            (self._all if self._keep else stack).push_async_callback(remote.stop)
            await remote.start()
            if self._keep:
                self._remotes[key] = remote
        remote.health = health
        if self._keep:
            stack.push_async_callback(_close, remote)
        return remote


async def _close(remote: Remote) -> None:
    with suppress(GeneratorError):
        await remote.call("close")
