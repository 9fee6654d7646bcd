"""Does the steps of a plan, and mends what they broke."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence

from support.store.valkey import Cluster, Server

from history.plan import Step
from history.record import History, Loss
from history.stores import Stores
from history.workers import Worker

RUSH, RUSH_TIME = 150, 0.1
"""How many messages are published at once by each worker, and seconds until they are on their way."""


class Faults:
    """What can be done to stores, workers and Valkey; a method a kind of step.

    Args:
        stores: to which it is done.
        workers: likewise.
        history: where losses are noted.
        say: is told what is done.
    """

    def __init__(self, stores: Stores, workers: Sequence[Worker], history: History, say: Callable[[str], None]) -> None:
        self._stores = stores
        self._workers = workers
        self._history = history
        self._say = say
        self._restarting = [asyncio.Lock() for _ in workers]
        self._valkey = asyncio.Lock()  # a Cluster stands one of these at a time

    async def do(self, steps: Sequence[Step]) -> None:
        """Do all steps at their times, and return when each is mended."""
        begun = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for step in steps:
                await asyncio.sleep(begun + step.at - time.monotonic())
                self._say(f"{step.kind} {step.target}".rstrip() + (f" of {step.amount:g}" if step.amount else ""))
                group.create_task(getattr(self, step.kind)(step))

    async def kill(self, step: Step) -> None:
        await self._stores.stop(step.target, signal.SIGKILL)
        await asyncio.sleep(step.lasting)
        await self._stores.start(step.target)

    async def terminate(self, step: Step) -> None:
        await self._stores.stop(step.target, signal.SIGTERM)
        await asyncio.sleep(step.lasting)
        await self._stores.start(step.target)

    async def hang(self, step: Step) -> None:
        self._stores.signal(step.target, signal.SIGSTOP)
        try:
            self._burst(step)
            await asyncio.sleep(step.lasting)
        finally:
            self._stores.signal(step.target, signal.SIGCONT)

    async def hang_in_a_rush(self, step: Step) -> None:
        """Stop a store while it has much to tell, some of which it tells when it is continued."""
        for worker in self._workers:
            worker.rushes.put_nowait(int(RUSH * worker.weight))
        await asyncio.sleep(RUSH_TIME)
        await self.hang(step)

    async def burst(self, step: Step) -> None:
        self._burst(step)

    def _burst(self, step: Step) -> None:
        if step.amount:
            self._workers[int(step.at * 10) % 2].bursts.put_nowait(int(step.amount))

    async def kill_worker(self, step: Step) -> None:
        place = int(step.target) - 1
        worker = self._workers[place]
        async with self._restarting[place]:  # else two processes of it would come of two kills that overlap
            await worker.kill()
            await asyncio.sleep(step.lasting)
            await worker.start()

    async def shift(self, step: Step) -> None:
        self._stores.shift(step.target, step.amount)

    async def shift_and_kill(self, step: Step) -> None:
        await self.shift(step)
        await self.kill(step)

    async def fill_disk(self, step: Step) -> None:
        await self._stores.fill_disk()
        await asyncio.sleep(step.lasting)
        self._stores.free_disk()

    # What is done to Valkey: without ``replicas``, what lets a replica take over unasked loses what it has not got yet.

    async def stop_valkey(self, step: Step) -> None:
        async with self._valkey:
            with self._losing(self._lossy):
                server = await self._server(step)
                server.send(signal.SIGSTOP)
                try:
                    await asyncio.sleep(step.lasting)
                finally:
                    server.send(signal.SIGCONT)
                await self._whole()

    async def pause_valkey(self, step: Step) -> None:
        async with self._valkey:
            with self._losing(self._lossy):
                server = await self._server(step)
                await asyncio.to_thread(server.ask, "CLIENT", "PAUSE", int(step.lasting * 1000), "ALL")
                await asyncio.sleep(step.lasting)
                await self._whole()

    async def kill_valkey(self, step: Step) -> None:
        async with self._valkey:
            with self._losing(self._lossy):
                server = await self._server(step)
                await asyncio.to_thread(server.end)
                await asyncio.sleep(step.lasting)
                await asyncio.to_thread(server.start)
                await self._whole()

    async def empty_valkey(self, _step: Step) -> None:
        async with self._valkey:
            with self._losing(True):
                assert self._stores.valkey is not None
                await asyncio.to_thread(self._stores.valkey.clear)

    async def fail_over(self, step: Step) -> None:
        async with self._valkey:
            await asyncio.to_thread(self._cluster.fail_over, int(step.target))
            await self._whole()

    async def lose_primary(self, step: Step) -> None:
        async with self._valkey:
            with self._losing(self._lossy):
                primary, replica = await asyncio.to_thread(self._cluster.pair, int(step.target))
                await asyncio.to_thread(primary.end)
                await asyncio.to_thread(self._cluster.until_primary, replica)
                await asyncio.to_thread(primary.start)
                await self._whole()

    @property
    def _cluster(self) -> Cluster:
        assert isinstance(self._stores.valkey, Cluster)
        return self._stores.valkey

    @property
    def _lossy(self) -> bool:
        return isinstance(self._stores.valkey, Cluster) and self._stores.setting.replicas == 0

    @contextlib.contextmanager
    def _losing(self, lossy: bool) -> Iterator[None]:
        loss = Loss(time.monotonic())
        self._history.doubts.append(loss.begun)
        if lossy:
            self._history.losses.append(loss)
        yield
        loss.ended = time.monotonic()

    async def _server(self, step: Step) -> Server:
        """Return the single server, or a primary."""
        if isinstance(self._stores.valkey, Server):
            return self._stores.valkey
        return (await asyncio.to_thread(self._cluster.pair, int(step.target)))[0]

    async def _whole(self) -> None:
        if isinstance(self._stores.valkey, Cluster):
            await asyncio.to_thread(self._cluster.until_whole)
