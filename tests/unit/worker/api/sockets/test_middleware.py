"""What middleware may return and raise: the same as in a balancer's controller, and with ``use`` a little more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.worker.running import Probe, RunningWorker

from socketcluster_worker.api.sockets.action import Action
from socketcluster_worker.api.sockets.middleware import STAGES, Middleware, Stage
from socketcluster_worker.errors import EventError

REQUESTS: dict[Stage, tuple[str, Any]] = {
    "event": ("echo", 1),
    "subscribe": ("#subscribe", {"channel": "news"}),
    "publish_in": ("#publish", {"channel": "news", "data": 1}),
}


@pytest.mark.parametrize("stage", REQUESTS)
async def test_middleware_lets_through_by_returning_nothing(worker: RunningWorker, probe: Probe, stage: Stage) -> None:
    asked: list[Action] = []

    @worker.worker.ws_server.middleware(stage)
    def plain(action: Action) -> None:
        asked.append(action)

    @worker.worker.ws_server.middleware(stage)
    async def asynchronous(action: Action) -> None:
        await asyncio.sleep(0)
        asked.append(action)

    client = await worker.socket()
    assert "error" not in await client.call(*REQUESTS[stage])
    first, second = asked
    assert first is second
    assert (first.stage, first.socket) == (stage, await probe.sockets.get())


@pytest.mark.parametrize("stage", REQUESTS)
async def test_middleware_refuses_by_an_event_error(worker: RunningWorker, stage: Stage) -> None:
    @worker.worker.ws_server.middleware(stage)
    def refuse(action: Action) -> None:
        raise EventError("no", name="NoError", data={"stage": action.stage})

    client = await worker.socket()
    answer = await client.call(*REQUESTS[stage])
    assert answer["error"] == {"name": "NoError", "message": "no", "data": {"stage": stage}}


@pytest.mark.parametrize("stage", REQUESTS)
@pytest.mark.parametrize("returned", [False, True, "no"])
async def test_middleware_that_returns_something_fails(worker: RunningWorker, stage: Stage, returned: Any) -> None:
    @worker.worker.ws_server.middleware(stage)
    async def judge(_action: Action) -> Any:
        return returned

    client = await worker.socket()
    answer = await client.call(*REQUESTS[stage])
    assert answer["error"]["name"] == "InternalServerError"
    error, _ = await worker.errors.get()
    assert isinstance(error, TypeError)
    assert f"judge returned {returned!r}: it returns nothing, and refuses by EventError" in str(error)


async def test_with_use_false_refuses_and_all_else_lets_through(worker: RunningWorker) -> None:
    returned: list[Any] = [True, "yes", None, False]
    worker.worker.ws_server.use("event", lambda _action: returned.pop(0))
    client = await worker.socket()
    answers = [await client.call("echo", number) for number in range(4)]
    assert [answer.get("data") for answer in answers] == [0, 1, 2, None]
    assert answers[3]["error"]["name"] == "SilentMiddlewareBlockedError"


def test_a_wrong_stage_is_told_with_the_right_one() -> None:
    middleware = Middleware()
    adders: tuple[Callable[[Any], Any], ...] = (middleware, middleware.use)
    for add in adders:
        with pytest.raises(ValueError, match=r"'publish_inn'.*did you mean publish_in\?"):
            add("publish_inn")
    assert not any(middleware.active(stage) for stage in STAGES)


def test_middleware_is_a_function() -> None:
    def generator(_action: Action) -> Iterator[None]:
        yield

    def two(_action: Action, _more: int) -> None: ...

    for wrong, told in (
        (generator, "is a function, plain or async"),
        ("no function", "is a function, plain or async"),
        (two, "would get nothing for '_more'"),
    ):
        adders: tuple[Callable[[Any], Any], ...] = (Middleware()("event"), Middleware().use("event"))
        for add in adders:
            with pytest.raises(TypeError, match=told):
                add(wrong)
