"""What SocketCluster's protocol document asks of a server beyond its requests and authentication."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from support.clients.raw import HANDSHAKE, event
from support.worker.running import Probe, RunningWorker, StartWorker, until

from socketcluster_worker.errors import EventError


async def no_more(websocket: Any) -> None:
    """Make sure that nothing waits to be read."""
    await websocket.send_text(event("echo", "nothing came before this", 99))
    assert await websocket.next_json() == {"rid": 99, "data": "nothing came before this"}


# Handshake and heartbeat.


async def test_the_handshake_is_answered_with_id_and_times(start_worker: StartWorker, probe: Probe) -> None:
    worker = await start_worker(probe.run, heartbeat_interval=8, heartbeat_timeout=4)
    one, other = await worker.socket(), await worker.socket()
    ids = [(await probe.sockets.get()).id for _ in range(2)]
    assert one.handshake == {"id": ids[0], "pingTimeout": 12_000, "isAuthenticated": False}
    assert other.handshake["id"] == ids[1] != ids[0]


@pytest.mark.parametrize("version", [1, 2])
async def test_a_pong_before_the_handshake_ends_the_connection(
    start_worker: StartWorker, probe: Probe, version: int
) -> None:
    worker = await start_worker(probe.run, protocol_version=version)
    websocket = await worker.websocket()
    await websocket.send_text("#2" if version == 1 else "")
    if version == 1:
        assert (await websocket.next_json())["event"] == "#disconnect"
    assert (await websocket.next_close())[0] == 4009


async def test_without_strict_handshake_a_pong_may_come_first(start_worker: StartWorker, probe: Probe) -> None:
    worker = await start_worker(probe.run, strict_handshake=False)
    websocket = await worker.websocket()
    await websocket.send_text("")
    await websocket.send_text(HANDSHAKE)
    assert (await websocket.next_json())["rid"] == 1


async def test_pings_are_empty_texts_and_pongs_keep_the_connection(start_worker: StartWorker, probe: Probe) -> None:
    worker = await start_worker(probe.run, heartbeat_interval=0.1, heartbeat_timeout=2)
    websocket = await worker.socket()
    for _ in range(2):
        assert await websocket.next_text() == ""
        await websocket.send_text("")
    assert probe.ends.empty()


# Events and procedures.


@pytest.mark.parametrize("cid", [1, 2**53 - 1, 1.5, "a-uuid", 0])
async def test_a_response_has_the_cid_of_its_request(worker: RunningWorker, probe: Probe, cid: Any) -> None:
    websocket = await worker.socket()
    await websocket.send_json({"event": "echo", "data": {"a": 1}, "cid": cid})
    assert await websocket.next_json() == {"rid": cid, "data": {"a": 1}}


async def test_data_are_optional_both_ways(worker: RunningWorker, probe: Probe) -> None:
    websocket = await worker.socket()
    socket = await probe.sockets.get()
    socket.on("count", lambda *args: len(args) or None)
    await websocket.send_text('{"event":"count","cid":2}')
    assert await websocket.next_json() == {"rid": 2}
    socket.emit("nothing")
    assert await websocket.next_json() == {"event": "nothing"}


@pytest.mark.parametrize("refused", [True, False])
async def test_a_transmitted_event_has_no_response(worker: RunningWorker, probe: Probe, refused: bool) -> None:
    def refuse(action: Any) -> None:
        if refused and action.event != "echo":
            raise EventError("no")

    worker.worker.ws_server.middleware.use("event", refuse)
    websocket = await worker.socket()
    socket = await probe.sockets.get()
    socket.on("fail", lambda: 1 / 0)
    socket.on("answer", lambda: "answer")
    for name in ("fail", "answer", "nobody"):
        await websocket.send_text(event(name))
    await no_more(websocket)


async def test_the_server_s_call_ids_begin_with_1_and_rise(worker: RunningWorker, probe: Probe) -> None:
    for _ in range(2):
        websocket = await worker.socket()
        socket = await probe.sockets.get()
        for number in range(1, 4):
            calling = asyncio.create_task(socket.call("question"))
            assert (await websocket.next_json())["cid"] == number
            await websocket.send_json({"rid": number, "data": number})
            assert await calling == number


async def test_ids_of_both_sides_are_two_sets(worker: RunningWorker, probe: Probe) -> None:
    websocket = await worker.socket()
    socket = await probe.sockets.get()
    calling = asyncio.create_task(socket.call("question"))
    assert (await websocket.next_json())["cid"] == 1
    await websocket.send_json([{"event": "echo", "data": "mine", "cid": 1}, {"rid": 1, "data": "yours"}])
    assert await websocket.next_json() == {"rid": 1, "data": "mine"}
    assert await calling == "yours"


@pytest.mark.parametrize("stage", ["event", "subscribe", "publish_in"])
async def test_what_is_blocked_without_a_reason_has_the_protocol_s_own_error(
    worker: RunningWorker, probe: Probe, stage: str
) -> None:
    worker.worker.ws_server.middleware.use(stage, lambda action: False)
    websocket = await worker.socket()
    requests = {"event": "echo", "subscribe": "#subscribe", "publish_in": "#publish"}
    answer = await websocket.call(requests[stage], {"channel": "a", "data": 1})
    assert answer["error"]["name"] == "SilentMiddlewareBlockedError"
    assert "blocked" in answer["error"]["message"]


async def test_in_version_2_other_names_with_a_number_sign_are_the_application_s(
    worker: RunningWorker, probe: Probe
) -> None:
    websocket = await worker.socket()
    (await probe.sockets.get()).on("#custom", lambda data: data + 1)
    assert (await websocket.call("#custom", 1))["data"] == 2
    assert (await websocket.call("#nobody"))["error"]["name"] == "NoHandlerError"


async def test_in_version_1_all_names_with_a_number_sign_are_reserved(start_worker: StartWorker, probe: Probe) -> None:
    worker = await start_worker(probe.run, protocol_version=1)
    websocket = await worker.socket()
    (await probe.sockets.get()).on("#custom", lambda data: data + 1)
    assert (await websocket.call("#custom", 1))["error"]["name"] == "InvalidActionError"


# Channels.


async def test_requests_without_cid_have_no_response(worker: RunningWorker, probe: Probe) -> None:
    def refuse(action: Any) -> None:
        if action.channel == "secret":
            raise EventError("no")

    for stage in ("subscribe", "publish_in"):
        worker.worker.ws_server.middleware.use(stage, refuse)
    websocket = await worker.socket()
    socket = await probe.sockets.get()
    await websocket.send_text(event("#subscribe", {"channel": "a"}))
    await until(lambda: socket.channels)
    for name, data in (
        ("#subscribe", {"channel": "secret"}),
        ("#subscribe", {}),
        ("#publish", {"channel": "secret", "data": 1}),
        ("#publish", {"channel": "nobody is here", "data": 1}),
        ("#publish", None),
        ("#unsubscribe", "a"),
        ("#unsubscribe", "a"),
        ("#removeAuthToken", None),
        ("#custom", None),
    ):
        await websocket.send_text(event(name, data))
    await no_more(websocket)
    assert socket.channels == set()


async def test_a_publication_reaches_its_sender_and_says_its_channel(worker: RunningWorker, probe: Probe) -> None:
    websocket = await worker.socket()
    await websocket.call("#subscribe", {"channel": "a"})
    await websocket.send_json({"event": "#publish", "data": {"channel": "a", "data": {"n": 1}}})
    assert await websocket.next_json() == {"event": "#publish", "data": {"channel": "a", "data": {"n": 1}}}
    await websocket.send_json({"event": "#publish", "data": {"channel": "a"}})
    assert (await websocket.next_json())["data"]["channel"] == "a"


@pytest.mark.parametrize(("channels", "kicked"), [(["a", "c", "x"], ["a", "c"]), (None, ["a", "b", "c"]), ("b", ["b"])])
async def test_a_kick_out_is_one_event_for_each_channel(
    worker: RunningWorker, probe: Probe, channels: Any, kicked: list[str]
) -> None:
    websocket = await worker.socket()
    socket = await probe.sockets.get()
    for channel in ("a", "b", "c"):
        await websocket.call("#subscribe", {"channel": channel})
    assert socket.kick_out(channels, "go") is True
    for channel in kicked:
        assert await websocket.next_json() == {"event": "#kickOut", "data": {"channel": channel, "message": "go"}}
    assert socket.channels == {"a", "b", "c"} - set(kicked)
    assert socket.kick_out(kicked) is False
    await no_more(websocket)


# Authentication.


async def test_authenticate_without_cid_is_answered_without_rid(worker: RunningWorker, probe: Probe) -> None:
    websocket = await worker.socket()
    await websocket.send_text(event("#authenticate", "no token"))
    assert await websocket.next_json() == {"event": "#removeAuthToken"}
    answer = await websocket.next_json()
    assert "rid" not in answer
    assert answer["error"]["name"] == "AuthTokenInvalidError"


async def test_an_array_may_hold_any_messages(worker: RunningWorker, probe: Probe) -> None:
    websocket = await worker.socket()
    socket = await probe.sockets.get()
    calling = asyncio.create_task(socket.call("question"))
    cid = (await websocket.next_json())["cid"]
    await websocket.send_text(
        json.dumps([{"event": "echo", "data": 1, "cid": 2}, {"rid": cid, "data": "yes"}, {"event": "note", "data": 3}])
    )
    assert await websocket.next_json() == {"rid": 2, "data": 1}
    assert await calling == "yes"
    assert await probe.events.get() == 3
    await websocket.send_text("[]")
    await no_more(websocket)
