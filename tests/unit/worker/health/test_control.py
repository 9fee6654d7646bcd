"""What a worker tells balancers of itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.worker.running import until

from socketcluster_proto.v1 import worker_pb2 as pb
from socketcluster_runtime.sockets.beats import BeatReader, Beats
from socketcluster_worker.health.control import ALIVE_INTERVAL, Control


async def test_a_status_comes_again_though_nothing_has_changed_as_a_sign_of_life() -> None:
    control = Control(pb.WorkerStatus(worker_id="aaaaaaaa"), lambda: 7)
    control.update(ready=True)
    context: Any = None
    stream = control.Watch(pb.WatchRequest(), context)
    first, second = await anext(stream), await anext(stream)
    assert first == second
    assert first.ready
    assert first.connections == 7
    assert first.alive_every_ms == 1000 * ALIVE_INTERVAL
    control.update(ready=False, draining=True)
    assert (await anext(stream)).draining
    await stream.aclose()  # type: ignore[attr-defined]
    control.close()


class Stream:
    """A balancer's two streams: what it hears, and what it says."""

    def __init__(self, control: Control) -> None:
        context: Any = None
        self.statuses: list[pb.WorkerStatus] = []
        self._says: asyncio.Queue[pb.OtherWorkers] = asyncio.Queue()
        self._tasks = [
            asyncio.create_task(self._watch(control.Watch(pb.WatchRequest(stream=b"one"), context))),
            asyncio.create_task(control.Others(self._said(), context)),
        ]

    def say(self, beats_for: bytes) -> None:
        self._says.put_nowait(pb.OtherWorkers(beats_for=beats_for))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    async def _watch(self, stream: AsyncIterator[pb.WorkerStatus]) -> None:
        async for status in stream:
            self.statuses.append(status)

    async def _said(self) -> AsyncIterator[pb.OtherWorkers]:
        while True:
            yield await self._says.get()


async def test_a_balancer_that_sees_it_beat_is_told_of_changes_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socketcluster_worker.health.control.ALIVE_INTERVAL", 0.002)
    monkeypatch.setattr("socketcluster_worker.health.control.LOAD_INTERVAL", 0.001)
    connections = 7
    control = Control(pb.WorkerStatus(worker_id="aaaaaaaa"), lambda: connections, beats=Beats(tmp_path / "a.beats"))
    reader = BeatReader(str(tmp_path / "a.beats"))
    stream, other = Stream(control), Stream(control)
    other.say(b"another")
    await until(lambda: len(stream.statuses) > 3)
    stream.say(b"one")
    await until(lambda: list(control._seen.values()) == [b"another", b"one"])
    beaten = reader.count
    await until(lambda: reader.look() is not None and reader.count > beaten + 3)
    told = len(stream.statuses)
    await until(lambda: reader.look() is not None and reader.count > beaten + 10)
    assert len(stream.statuses) == told
    connections = 8
    await until(lambda: stream.statuses[-1].connections == 8)
    assert len(stream.statuses) == told + 1
    control.update(ready=True)
    await until(lambda: stream.statuses[-1].ready)
    stream.say(b"")
    told = len(stream.statuses)
    await until(lambda: len(stream.statuses) > told + 3)
    await stream.close()
    await other.close()
    control.close()
    assert not (tmp_path / "a.beats").exists()
    reader.close()


async def test_where_beats_cannot_be_written_the_status_comes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socketcluster_worker.health.control.ALIVE_INTERVAL", 0.002)
    beats = Beats(tmp_path / "a.beats")
    control = Control(pb.WorkerStatus(worker_id="aaaaaaaa"), lambda: 7, beats=beats)
    stream = Stream(control)
    stream.say(b"one")
    await until(lambda: control._seen)
    monkeypatch.setattr(beats, "beat", no_space)
    told = len(stream.statuses)
    await until(lambda: len(stream.statuses) > told + 3)
    assert control._beats is None
    await stream.close()
    control.close()


def no_space() -> None:
    raise OSError("no space left")
