"""SocketCluster's own events on the wire: the order of requests, channels, middleware, batches, version 1."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from support.clients.raw import HANDSHAKE, RawWebSocket, event, frame
from support.worker.running import Probe, RunningWorker, StartWorker
from websockets.frames import Opcode

from socketcluster_wire.close_codes import CloseCode
from socketcluster_worker.errors import EventError


def published(channel: str, data: Any) -> dict[str, Any]:
    return {"event": "#publish", "data": {"channel": channel, "data": data}}


async def answers(websocket: RawWebSocket, count: int) -> list[Any]:
    return [await websocket.next_json() for _ in range(count)]


# The handshake.


@pytest.mark.parametrize("first", [event("hello"), event("hello", None, 1), '{"rid":1}', f"[{event('a')},{HANDSHAKE}]"])
async def test_a_message_before_the_handshake_ends_the_connection(worker: RunningWorker, first: str) -> None:
    websocket = await worker.websocket()
    await websocket.send_text(first)
    assert (await websocket.next_close())[0] == 4009


async def test_without_strict_handshake_messages_wait_for_it(start_worker: StartWorker, probe: Probe) -> None:
    worker = await start_worker(probe.run, strict_handshake=False)
    websocket = await worker.websocket()
    await websocket.send_text(event("echo", "early", 5))
    await websocket.send_text(HANDSHAKE)
    first, second = await answers(websocket, 2)
    assert (first["rid"], second) == (1, {"rid": 5, "data": "early"})


async def test_without_strict_handshake_few_messages_wait(start_worker: StartWorker, probe: Probe) -> None:
    worker = await start_worker(probe.run, strict_handshake=False)
    websocket = await worker.websocket()
    for _ in range(2):
        await websocket.send_text(json.dumps([{"event": "a"}] * 600))
    assert (await websocket.next_close())[0] == CloseCode.POLICY_VIOLATION


async def test_no_handshake_in_time_ends_the_connection(start_worker: StartWorker, probe: Probe) -> None:
    worker = await start_worker(probe.run, handshake_timeout=0.05)
    websocket = await worker.websocket()
    assert (await websocket.next_close())[0] == 4005


@pytest.mark.parametrize("data", [1, "token", ["token"], True])
async def test_a_handshake_whose_data_are_no_object_is_refused(worker: RunningWorker, data: Any) -> None:
    websocket = await worker.websocket()
    await websocket.send_text(event("#handshake", data, 1))
    assert (await websocket.next_close())[0] == 4008


@pytest.mark.parametrize("handshake", ['{"event":"#handshake"}', '{"event":"#handshake","data":null}'])
async def test_a_handshake_without_cid_is_answered_without_rid(worker: RunningWorker, handshake: str) -> None:
    websocket = await worker.websocket()
    await websocket.send_text(handshake)
    answer = await websocket.next_json()
    assert "rid" not in answer
    assert answer["data"]["id"]


async def test_a_refused_handshake_says_why_and_with_which_code_it_ends(worker: RunningWorker) -> None:
    def refuse(action: Any) -> None:
        raise EventError("no room", name="FullError", data={"retry": 5})

    worker.worker.ws_server.middleware.use("handshake", refuse)
    websocket = await worker.websocket()
    await websocket.send_text(HANDSHAKE)
    assert await websocket.next_json() == {
        "rid": 1,
        "error": {"name": "FullError", "message": "no room", "data": {"retry": 5}, "statusCode": 4008},
        "data": {"code": 4008},
    }
    assert (await websocket.next_close())[0] == 4008


@pytest.mark.parametrize("message", ["{", "#1", '{"event":1}', "[1]", "null"])
async def test_malformed_messages_end_the_connection(worker: RunningWorker, probe: Probe, message: str) -> None:
    websocket = await worker.socket()
    await websocket.send_text(message)
    assert (await websocket.next_close())[0] == 1007
    assert (await probe.ends.get())[1] == 1007


# Channels.


async def test_a_batch_of_subscriptions(worker: RunningWorker) -> None:
    websocket = await worker.socket()
    requests = [{"event": "#subscribe", "data": {"channel": f"c{n}", "data": n}, "cid": n} for n in range(2, 5)]
    await websocket.send_json(requests)
    assert sorted((await answers(websocket, 3)), key=lambda a: a["rid"]) == [{"rid": n} for n in range(2, 5)]
    await worker.worker.ws_server.exchange.publish("c4", "x")
    assert await websocket.next_json() == published("c4", "x")


async def test_subscribing_and_unsubscribing_happen_in_the_order_in_which_they_are_asked_for(
    worker: RunningWorker, probe: Probe
) -> None:
    websocket = await worker.socket()
    socket = await probe.sockets.get()
    subscribe = {"event": "#subscribe", "data": {"channel": "a"}, "cid": 2}
    unsubscribe = {"event": "#unsubscribe", "data": "a", "cid": 3}
    await websocket.send_json([subscribe, unsubscribe])
    got = {answer["rid"]: answer for answer in await answers(websocket, 2)}
    assert got[3] == {"rid": 3}
    assert got[2]["error"]["name"] == "BrokerError"  # it has ended before it was confirmed
    assert socket.channels == set()
    assert (await websocket.call("#unsubscribe", "a"))["error"]["name"] == "BrokerError"


async def test_publishing_with_and_without_cid(worker: RunningWorker) -> None:
    websocket = await worker.socket()
    await websocket.call("#subscribe", {"channel": "a"})
    await websocket.send_json(published("a", 1))
    assert await websocket.next_json() == published("a", 1)
    await websocket.send_json(published("a", 2) | {"cid": 8})
    got = await answers(websocket, 2)
    assert {"rid": 8} in got
    assert published("a", 2) in got


@pytest.mark.parametrize("data", [None, {}, {"channel": 1}, {"channel": ""}, "", []])
@pytest.mark.parametrize("name", ["#publish", "#subscribe"])
async def test_a_channel_that_cannot_be_is_refused(worker: RunningWorker, name: str, data: Any) -> None:
    websocket = await worker.socket()
    assert (await websocket.call(name, data))["error"]["name"] == "InvalidChannel"


async def test_kick_out_ends_a_subscription_and_says_so(worker: RunningWorker, probe: Probe) -> None:
    websocket = await worker.socket()
    socket = await probe.sockets.get()
    await websocket.call("#subscribe", {"channel": "a"})
    assert socket.kick_out("a", "you are noisy") is True
    assert await websocket.next_json() == {"event": "#kickOut", "data": {"channel": "a", "message": "you are noisy"}}
    assert socket.kick_out("a") is False
    await worker.worker.ws_server.exchange.publish("a", 1)
    assert (await websocket.call("echo", "nothing came before this"))["data"] == "nothing came before this"


@pytest.mark.parametrize("name", ["#handshake", "#kickOut", "#setAuthToken"])
async def test_a_reserved_event_that_a_client_may_not_send_is_an_error(worker: RunningWorker, name: str) -> None:
    websocket = await worker.socket()
    assert (await websocket.call(name, {}))["error"]["name"] == "InvalidActionError"


# Middleware.


async def test_middleware_of_subscriptions_and_publications(worker: RunningWorker) -> None:
    seen = []

    async def judge(action: Any) -> None:
        await asyncio.sleep(0)
        seen.append((action.stage, action.channel, action.data))
        if action.channel == "secret":
            raise EventError("not for you", name="SecretError", data=[1])
        if action.stage == "publish_in":
            action.data = {"checked": action.data}

    worker.worker.ws_server.middleware.use("subscribe", judge)
    worker.worker.ws_server.middleware.use("publish_in", judge)
    websocket = await worker.socket()
    refusal = {"name": "SecretError", "message": "not for you", "data": [1]}
    assert (await websocket.call("#subscribe", {"channel": "secret", "data": "please"}))["error"] == refusal
    assert (await websocket.call("#publish", {"channel": "secret", "data": 0}))["error"] == refusal
    assert "error" not in await websocket.call("#subscribe", {"channel": "open"})
    await websocket.send_json(published("open", 1))
    assert await websocket.next_json() == published("open", {"checked": 1})
    assert seen == [
        ("subscribe", "secret", "please"),
        ("publish_in", "secret", 0),
        ("subscribe", "open", None),
        ("publish_in", "open", 1),
    ]


async def test_async_middleware_keeps_the_order_of_what_a_client_sends(worker: RunningWorker) -> None:
    gates = {1: asyncio.Event(), 2: asyncio.Event()}
    gates[2].set()

    async def judge(action: Any) -> None:
        await gates[action.data].wait()

    worker.worker.ws_server.middleware.use("publish_in", judge)
    websocket = await worker.socket()
    await websocket.call("#subscribe", {"channel": "a"})
    await websocket.send_json([published("a", 1), published("a", 2), {"event": "echo", "data": 3, "cid": 3}])
    asyncio.get_running_loop().call_later(0.05, gates[1].set)
    got = await answers(websocket, 3)
    assert [one["data"]["data"] for one in got if "event" in one] == [1, 2]


async def test_publish_out_is_asked_for_each_recipient(worker: RunningWorker, probe: Probe) -> None:
    one, other = await worker.socket(), await worker.socket()
    first, second = await probe.sockets.get(), await probe.sockets.get()
    first.data["name"], second.data["name"] = "first", "second"

    async def judge(action: Any) -> None:
        if action.data == {"n": 1}:
            await asyncio.sleep(0.02)  # the later message must not overtake this one
        if action.data == {"n": 2} and action.socket is first:
            raise EventError("not this one")
        if action.data == {"n": 3} and action.socket is first:
            raise RuntimeError("a failure")
        action.data["for"] = action.socket.data["name"]  # each recipient has its own copy

    worker.worker.ws_server.middleware.use("publish_out", judge)
    for websocket in (one, other):
        await websocket.call("#subscribe", {"channel": "a"})
    for n in range(1, 5):
        worker.worker.ws_server.exchange.publish("a", {"n": n})
    assert await answers(one, 2) == [published("a", {"n": n, "for": "first"}) for n in (1, 4)]
    assert await answers(other, 4) == [published("a", {"n": n, "for": "second"}) for n in range(1, 5)]
    assert str((await worker.errors.get())[0]) == "a failure"


async def test_a_subscription_that_ends_while_publish_out_is_asked_gets_nothing(
    worker: RunningWorker, probe: Probe
) -> None:
    asked, may_go_on = asyncio.Event(), asyncio.Event()

    async def judge(action: Any) -> None:
        asked.set()
        await may_go_on.wait()

    worker.worker.ws_server.middleware.use("publish_out", judge)
    websocket = await worker.socket()
    await websocket.call("#subscribe", {"channel": "a"})
    worker.worker.ws_server.exchange.publish("a", 1)
    await asked.wait()
    assert "error" not in await websocket.call("#unsubscribe", "a")
    may_go_on.set()
    assert (await websocket.call("echo", 2))["data"] == 2


# Errors.


async def test_errors_reach_the_client_by_name_and_with_their_data(worker: RunningWorker, probe: Probe) -> None:
    websocket = await worker.socket()
    socket = await probe.sockets.get()

    def refuse(how: str) -> None:
        if how == "known":
            raise EventError("no", name="KnownError", data={"more": True})
        if how == "odd":
            raise EventError("no", name="OddError", data=object())
        raise ValueError("a secret of the server")

    socket.on("refuse", refuse)
    error = (await websocket.call("refuse", "known"))["error"]
    assert error == {"name": "KnownError", "message": "no", "data": {"more": True}}
    assert (await websocket.call("refuse", "odd"))["error"]["name"] == "InternalServerError"
    error = (await websocket.call("refuse", "unknown"))["error"]
    assert error["name"] == "InternalServerError"
    assert "secret" not in json.dumps(error)


# Batches.


async def test_with_a_batch_interval_messages_are_sent_as_arrays(start_worker: StartWorker, probe: Probe) -> None:
    worker = await start_worker(probe.run, batch_interval=0.05, heartbeat_interval=1)
    websocket = await worker.socket()
    socket = await probe.sockets.get()
    for n in range(3):
        socket.emit("n", n)
    assert await websocket.next_json() == [{"event": "n", "data": n} for n in range(3)]
    assert await websocket.next_text() == ""  # a ping is in no batch
    await websocket.send_text("")
    socket.emit("n", 1)
    socket.disconnect(4321, "bye")
    assert await websocket.next_json() == {"event": "n", "data": 1}
    assert await websocket.next_close() == (4321, "bye")
    await probe.ends.get()


async def test_a_batch_is_bounded(start_worker: StartWorker, probe: Probe) -> None:
    worker = await start_worker(probe.run, batch_interval=60)
    websocket = await worker.socket()
    socket = await probe.sockets.get()
    for n in range(1000):
        socket.emit("n", n)
    assert len(await websocket.next_json()) == 1000
    socket.emit("long", "x" * 70_000)
    assert (await websocket.next_json())["event"] == "long"


# Version 1.


async def test_version_1_pings_with_texts(start_worker: StartWorker, probe: Probe) -> None:
    worker = await start_worker(probe.run, protocol_version=1, heartbeat_interval=0.05, heartbeat_timeout=2)
    websocket = await worker.socket()
    assert await websocket.next_text() == "#1"
    await websocket.send_text("#2")
    assert await websocket.next_text() == "#1"


async def test_version_1_says_disconnect_before_it_closes(start_worker: StartWorker, probe: Probe) -> None:
    worker = await start_worker(probe.run, protocol_version=1)
    websocket = await worker.socket()
    (await probe.sockets.get()).disconnect(4321, "bye")
    assert await websocket.next_json() == {"event": "#disconnect", "data": {"code": 4321, "data": "bye"}}
    assert await websocket.next_close() == (4321, "bye")
    await probe.ends.get()


async def test_version_1_takes_the_reason_from_the_clients_disconnect(start_worker: StartWorker, probe: Probe) -> None:
    worker = await start_worker(probe.run, protocol_version=1)
    websocket = await worker.socket()
    await websocket.send_text(event("#disconnect", {"code": 1000, "data": "I am done"}))
    await websocket.end()
    assert (await probe.ends.get())[1:] == (1000, "I am done")


async def test_version_1_does_not_answer_a_handshake_without_cid(start_worker: StartWorker, probe: Probe) -> None:
    worker = await start_worker(probe.run, protocol_version=1)
    websocket = await worker.websocket()
    await websocket.send_json({"event": "#handshake", "data": {}})
    await probe.sockets.get()
    await websocket.send_json({"event": "echo", "data": 1, "cid": 5})
    assert await websocket.next_json() == {"rid": 5, "data": 1}


async def test_version_1_subscribes_by_name_too(start_worker: StartWorker, probe: Probe) -> None:
    worker = await start_worker(probe.run, protocol_version=1)
    websocket = await worker.socket()
    assert await websocket.call("#subscribe", "a") == {"rid": 7}
    assert (await probe.sockets.get()).channels == {"a"}


async def test_version_1_leaves_the_engine_endpoint_alone(start_worker: StartWorker, probe: Probe) -> None:
    worker = await start_worker(probe.run, protocol_version=1)
    engine = await worker.engine()
    await engine.handshake()
    await engine.post("4" + event("echo", 1, 5))
    assert json.loads((await engine.poll())[0][1:]) == {"rid": 5, "data": 1}


async def test_json_in_a_binary_message_is_read(worker: RunningWorker, probe: Probe) -> None:
    websocket = await worker.websocket()
    await websocket.send(frame(HANDSHAKE.encode(), Opcode.BINARY))
    assert (await websocket.next_json())["rid"] == 1
    await websocket.send(frame(b"", Opcode.BINARY), frame(event("echo", "é", 5).encode(), Opcode.BINARY))
    assert await websocket.next_json() == {"rid": 5, "data": "é"}


@pytest.mark.parametrize("data", [b"\0", b"\xff", b"{", b'{"event":"\xed\xa0\x80"}'])
async def test_other_binary_messages_end_the_connection(worker: RunningWorker, probe: Probe, data: bytes) -> None:
    websocket = await worker.socket()
    await websocket.send(frame(data, Opcode.BINARY))
    assert (await websocket.next_close())[0] == CloseCode.INVALID_DATA
    await probe.ends.get()


@pytest.mark.parametrize(
    ("result", "told"),
    [(None, {}), ((), {}), ((None,), {"data": None}), ((1,), {"data": 1}), ((1, 2), {"data": [1, 2]})],
)
async def test_a_handler_answers_nothing_null_or_several(
    worker: RunningWorker, probe: Probe, result: Any, told: dict[str, Any]
) -> None:
    websocket = await worker.socket()
    (await probe.sockets.get()).on("ask", lambda: result)
    assert await websocket.call("ask") == {"rid": 7} | told


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("how", ["error", "disconnect", "both"])
async def test_a_middleware_refuses_with_an_error_and_a_close_code_of_its_own(
    start_worker: StartWorker, probe: Probe, version: int, how: str
) -> None:
    worker = await start_worker(probe.run, protocol_version=version)

    @worker.worker.ws_server.use("handshake")
    async def refuse(action: Any) -> None:
        if how != "error":
            action.socket.disconnect(4555 if how == "disconnect" else 4999, "banned")
        raise EventError("not you", name="BannedError", data=[1], close_code=4555 if how != "disconnect" else None)

    websocket = await worker.websocket()
    await websocket.send_text(HANDSHAKE)
    answer = await websocket.next_json()
    assert answer["error"] == {"name": "BannedError", "message": "not you", "data": [1], "statusCode": 4555}
    assert answer["data"] == {"code": 4555}
    if version == 1:
        assert (await websocket.next_json())["event"] == "#disconnect"
    assert await websocket.next_close() == (4555, "the handshake was refused" if how == "error" else "banned")


@pytest.mark.parametrize("waits", [False, True])
async def test_a_middleware_may_end_the_connection_without_an_error(
    worker: RunningWorker, probe: Probe, waits: bool
) -> None:
    @worker.worker.ws_server.use("handshake")
    async def end(action: Any) -> None:
        action.socket.disconnect(4555, "banned")
        action.socket.disconnect(4556, "the first counts")
        if waits:
            await asyncio.Event().wait()

    websocket = await worker.websocket()
    await websocket.send_text(HANDSHAKE)
    assert await websocket.next_close() == (4555, "banned")
    assert probe.sockets.empty()


def test_a_close_code_is_one_that_may_be_sent() -> None:
    for code in (0, 999, 1005, 1006, 2000, 5000):
        with pytest.raises(ValueError, match="close code"):
            EventError("no", close_code=code)
