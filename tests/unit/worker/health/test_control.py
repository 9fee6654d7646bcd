"""What a worker tells balancers of itself."""

from __future__ import annotations

from typing import Any

from socketcluster_proto.v1 import worker_pb2 as pb
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
