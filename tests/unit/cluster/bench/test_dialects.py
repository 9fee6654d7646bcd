"""What clients of each protocol say, and make of what a server says."""

from __future__ import annotations

import json

import pytest

from socketcluster.bench.dialects import dialect_of, due_of, text_of
from socketcluster.bench.plan import Mode, Plan, Protocol


class Heard:
    """What a client was told, one after the other."""

    def __init__(self) -> None:
        self.events: list[tuple[object, ...]] = []

    def send(self, payload: bytes) -> None:
        self.events.append(("send", payload))

    def ready(self) -> None:
        self.events.append(("ready",))

    def refused(self, reason: str) -> None:
        self.events.append(("refused", reason))

    def answered(self, number: int | None, error: str = "") -> None:
        self.events.append(("answered", number, error))

    def delivered(self, payload: bytes) -> None:
        self.events.append(("delivered", due_of(payload)))


def heard(protocol: str, *payloads: bytes, mode: str = "ack", auth: str = "") -> list[tuple[object, ...]]:
    client = Heard()
    dialect = dialect_of(Plan(url="a", protocol=Protocol(protocol), mode=Mode(mode), auth=auth))
    dialect.opened(client)
    for payload in payloads:
        dialect.take(client, payload)
    return client.events


def test_a_text_says_when_it_was_due_whatever_is_around_it() -> None:
    assert len(text_of(5, 64)) == 64
    assert due_of(b'42["x", "' + text_of(123, 20).encode() + b'"]') == 123
    assert due_of(text_of(7, 1).encode()) == 7
    assert due_of(b"bench|nonsense|") is None
    assert due_of(b"something else") is None


def test_socketio_is_greeted_answers_pings_and_hears_answers_and_events() -> None:
    event = b'42["bench","bench|9|x"]'
    said = heard("socketio", b'0{"sid":"a"}', b'40{"sid":"b"}', b"2", b'437["x"]', event, b"41", auth='{"a":1}')
    assert said == [
        ("send", b'40{"a":1}'),
        ("ready",),
        ("send", b"3"),
        ("answered", 7, ""),
        ("delivered", 9),
        ("refused", "the server disconnected it"),
    ]
    assert heard("socketio", b'44{"message":"go away"}') == [("refused", "go away")]


def test_socketcluster_is_greeted_answers_pings_and_hears_answers_and_publications() -> None:
    publication = b'{"event":"#publish","data":{"channel":"bench","data":"bench|9|x"}}'
    said = heard("socketcluster", b'{"rid":1,"data":{"id":"a"}}', b"", b"#1", b'{"rid":2}', publication)
    assert said == [("ready",), ("send", b""), ("send", b"#2"), ("answered", 2, ""), ("delivered", 9)]
    batch = b'[{"rid":3,"error":{"name":"A","message":"b"}},' + publication + b",5]"
    assert heard("socketcluster", batch) == [("answered", 3, "A: b"), ("delivered", 9)]
    assert heard("socketcluster", b'{"rid":1,"error":"no"}') == [("refused", "no")]
    assert heard("socketcluster", b"{nonsense") == []


@pytest.mark.parametrize(
    ("auth", "data"),
    [("", {"authToken": None}), ('"jwt"', {"authToken": "jwt"}), ('{"a":1}', {"authToken": None, "a": 1})],
)
def test_what_socketcluster_s_handshake_carries(auth: str, data: object) -> None:
    (opening,) = dialect_of(Plan(url="a", protocol=Protocol.SOCKETCLUSTER, auth=auth)).opening
    assert json.loads(opening) == {"event": "#handshake", "data": data, "cid": 1}


def test_engineio_and_raw_websockets_are_answered_in_order_or_heard_by_all() -> None:
    assert heard("engineio", b'0{"sid":"a"}', b"2", b"4x", b"1") == [
        ("ready",),
        ("send", b"3"),
        ("answered", None, ""),
        ("refused", "the server closed it"),
    ]
    assert heard("websocket", b"x") == [("ready",), ("answered", None, "")]
    assert heard("websocket", b"bench|9|", mode="broadcast") == [("ready",), ("delivered", 9)]


def test_what_is_sent_is_right_in_each_protocol() -> None:
    plan = Plan(url="a", protocol=Protocol.SOCKETIO, channel='a "b"')
    dialect = dialect_of(plan)
    assert json.loads(dialect.call(2, "x")[3:]) == ["bench", "x"]
    assert json.loads(dialect.join(2)[3:]) == ["bench:join", 'a "b"']
    assert json.loads(dialect.publish(2, "x")[3:]) == ["bench:publish", 'a "b"', "x"]
    dialect = dialect_of(Plan(url="a", protocol=Protocol.SOCKETCLUSTER, channel="c"))
    published = {"channel": "c", "data": "x"}
    assert json.loads(dialect.call(2, "x"))["data"] == {**published, "channel": "c:nobody"}
    assert json.loads(dialect.join(3)) == {"event": "#subscribe", "data": {"channel": "c"}, "cid": 3}
    assert json.loads(dialect.publish(4, "x")) == {"event": "#publish", "data": published, "cid": 4}
    dialect = dialect_of(Plan(url="a", protocol=Protocol.SOCKETCLUSTER, event="e"))
    assert json.loads(dialect.call(2, "x")) == {"event": "e", "data": "x", "cid": 2}
    assert dialect_of(Plan(url="a", protocol=Protocol.ENGINEIO)).call(2, "x") == b"4x"
    assert dialect_of(Plan(url="a", protocol=Protocol.WEBSOCKET)).publish(2, "x") == b"x"
