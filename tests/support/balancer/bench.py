"""A balancer in the test's own loop, with its workers and clients."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from socketcluster_balancer.placement.handoff import HandoffLink
from socketcluster_balancer.placement.watched_worker import WatchedWorker
from socketcluster_balancer.service import BalancerService
from socketcluster_balancer.settings import BalancerSettings
from support.balancer.stand_in_worker import SECRET, StandInWorker

PATIENCE = 60.0
"""Seconds after which a test that waits for something has failed."""

LogLines: TypeAlias = Callable[[int], list[str]]
"""``log_lines(logging.ERROR)``: what was logged at a level or above it; a fixture."""


class Answer(NamedTuple):
    """What a client got."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def said(self) -> dict[str, Any]:
        """What the worker said about the request."""
        assert self.status == 200, (self.status, self.body)
        said: dict[str, Any] = json.loads(self.body)
        return said


class Bench:
    """A test's balancer, workers and clients."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.folder = folder
        self._stack = stack
        self._balancer: BalancerService | None = None
        self._watching: asyncio.Task[None] | None = None

    @property
    def balancer(self) -> BalancerService:
        assert self._balancer is not None
        return self._balancer

    @property
    def port(self) -> int:
        return self.balancer.listener.address[1]

    async def worker(
        self,
        worker_id: str,
        *,
        handoff: bool = True,
        http: bool = True,
        secret: str = SECRET,
        tcp: str | None = None,
        **status: object,
    ) -> StandInWorker:
        made = StandInWorker(worker_id, self.folder, secret, tcp)
        made.set(**status)
        await made.start(handoff=handoff, http=http)
        self._stack.push_async_callback(made.stop)
        return made

    async def start(self, *workers: StandInWorker, **options: Any) -> BalancerService:
        """Start the balancer and wait until it knows all workers."""
        addresses = options.pop("workers", [worker.address for worker in workers])
        options.setdefault("worker_wait", 30)
        options.setdefault("listen", "127.0.0.1:0")
        options.setdefault("defer_accept", False)  # or no silent client would be seen
        controller = options.pop("controller", None)
        settings = BalancerSettings(workers=addresses, secret=SECRET, name="tested", **options)
        self._balancer = BalancerService(settings, controller)
        self._watching = asyncio.get_running_loop().create_task(self._balancer.workers.run())
        self._balancer.listener.start()
        self._stack.push_async_callback(self.stop, 0)
        ready = {worker.status.worker_id for worker in workers if worker.status.ready}
        await self.until(lambda: {worker.worker_id for worker in self.available} == ready)
        return self._balancer

    async def stop(self, timeout: float) -> None:
        """Stop the balancer, if that has not been done."""
        if self._watching is None:
            return
        watching, self._watching = self._watching, None
        await self.balancer.stop(timeout)
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching

    @property
    def available(self) -> tuple[WatchedWorker, ...]:
        return self.balancer.workers.available

    @property
    def waiting(self) -> int:
        return self.balancer.dispatcher.waiting

    @property
    def relays(self) -> int:
        return self.balancer.dispatcher.relays

    @property
    def refused(self) -> dict[str, int]:
        """How many connections were refused, by the reasons that there were."""
        return {reason: count for reason, count in self.balancer.counters.refused.items() if count}

    @property
    def running(self) -> int:
        """How many clients async middleware works for."""
        admission = self.balancer.admission
        assert admission is not None
        return admission.running

    def reload_certificate(self) -> str | None:
        """Do what SIGHUP does."""
        assert self.balancer.certificate is not None
        return self.balancer.certificate.reload()

    @property
    def context(self) -> ssl.SSLContext:
        """What handshakes are made with."""
        assert self.balancer.certificate is not None
        return self.balancer.certificate.context

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until ``condition`` holds."""
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110  # the balancer has no event for it
                await asyncio.sleep(0.002)

    async def until_still(self, value: Callable[[], int]) -> None:
        """Wait until a number has risen and then stands still for a hundred turns of the loop that took a while."""
        seen, same = 0, 0
        async with asyncio.timeout(PATIENCE):
            while same < 100 or not seen:
                await asyncio.sleep(0.002)
                seen, same = value(), same + 1 if value() == seen else 0

    @asynccontextmanager
    async def client(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            async with asyncio.timeout(PATIENCE):
                yield reader, writer
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def send(self, *parts: bytes) -> Answer:
        """Send bytes and return the answer."""
        async with asyncio.timeout(PATIENCE), self.client() as (reader, writer):
            for part in parts:
                writer.write(part)
                await writer.drain()
            return await read_answer(reader)

    async def get(self, target: str = "/", **headers: str) -> Answer:
        return await self.send(request(target, **headers))


def link_of(worker: WatchedWorker) -> HandoffLink:
    """Return the link by which sockets go to a worker that takes them over."""
    assert worker.link is not None
    return worker.link


def request(target: str, **headers: str) -> bytes:
    lines = [f"GET {target} HTTP/1.1", "host: test", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    data = await reader.read()
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    return Answer(int(lines[0].split(" ")[1]), headers, body)
