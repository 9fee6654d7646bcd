"""Polling requests that have numbers, and come again."""

from __future__ import annotations

import asyncio
import gzip
import json

import pytest
from support.clients.raw import ENGINE, HANDSHAKE, Polling, RawClient, event
from support.worker.running import Probe, RunningWorker, StartWorker, until

from socketcluster_wire.close_codes import CloseCode
from socketcluster_worker.transport.engineio.engine import POLL_BYTES, EngineSession
from socketcluster_worker.transport.engineio.numbering import NumberedSession
from socketcluster_worker.transport.engineio.polling import EngineServer

RETURN_TIME = "socketcluster_worker.transport.engineio.engine.RETURN_TIME"
LAST_POLL = "socketcluster_worker.transport.engineio.engine.LAST_POLL"
BAD = 3
UNKNOWN = 1


class Numbered(Polling):
    """A connection whose requests have the numbers that a test gives them."""

    worker: RunningWorker

    @property
    def session(self) -> EngineSession:
        return server(self.worker)._sessions[self.sid]

    async def begin(self, method: str, number: object, body: bytes | None = None, rest: int = 0) -> RawClient:
        """Send a request; ``rest`` bytes of its body are not sent yet."""
        client = await self._connect()
        length = "" if body is None else f"Content-Length: {len(body) + rest}\r\n"
        head = f"{method} {self.target}&seq={number} HTTP/1.1\r\nHost: localhost\r\n{length}\r\n"
        await client.send(head.encode() + (body or b""))
        return client

    async def ask(self, method: str, number: object, body: bytes | None = None) -> tuple[int, str]:
        """Return status and body of a request with a number."""
        return await result(await self.begin(method, number, body))

    async def get(self, number: object) -> list[str]:
        """Return the packets of a poll."""
        status, body = await self.ask("GET", number)
        assert status == 200, body
        return body.split("\x1e")

    async def put(self, number: object, *packets: str) -> None:
        """Send packets."""
        assert await self.ask("POST", number, "\x1e".join(packets).encode()) == (200, "ok")

    async def wait(self, number: int) -> RawClient:
        """Begin a poll that waits."""
        client = await self.begin("GET", number)
        await until(lambda: self.session._poll is not None)
        return client


async def result(client: RawClient) -> tuple[int, str]:
    answer = await client.answer()
    client.close()
    return answer.status_code, bytes(answer.body or b"").decode()


def server(worker: RunningWorker) -> EngineServer:
    return worker.service._router._engines["/socketcluster/engine/"]


async def opened(worker: RunningWorker, at: RunningWorker | None = None) -> Numbered:
    """A session of numbered requests, which arrive ``at`` another worker if one is given."""
    client = Numbered(worker.connect, ENGINE.replace("EIO=4", "EIO=4&seq=0"))
    await client.open()
    client._endpoint, client.worker = ENGINE, worker
    if at is not None:
        client._connect = at.connect
    return client


@pytest.fixture
async def client(worker: RunningWorker, probe: Probe) -> Numbered:
    """A session with SocketCluster's handshake made: one poll, one POST."""
    return await shaken(await opened(worker))


async def shaken(made: Numbered) -> Numbered:
    await made.put(1, "4" + HANDSHAKE)
    assert json.loads((await made.get(1))[0][1:])["rid"] == 1
    return made


def code(answer: tuple[int, str]) -> tuple[int, int]:
    return answer[0], json.loads(answer[1])["code"]


# Who numbers.


async def test_only_who_asks_for_numbers_has_them(worker: RunningWorker) -> None:
    assert (await opened(worker)).opening["numbered"] is True
    for query in ("", "&seq=", "&seq=1", "&seq=00"):
        client = Polling(worker.connect, ENGINE.replace("EIO=4", "EIO=4" + query))
        await client.open()
        assert "numbered" not in client.opening


@pytest.mark.parametrize("path", ["/socket.io/", "/engine.io/"])
async def test_other_endpoints_know_no_numbers(worker: RunningWorker, probe: Probe, path: str) -> None:
    client = Polling(worker.connect, f"{path}?EIO=4&seq=0&transport=")
    await client.open()
    assert "numbered" not in client.opening
    await client.post("6")  # though it has the number 0 each time
    await client.post("6")


# Polls.


async def test_a_poll_that_comes_again_has_the_same_answer(client: Numbered, probe: Probe) -> None:
    socket = await probe.sockets.get()
    socket.emit("one", 1)
    first = await client.get(2)
    assert json.loads(first[0][1:]) == {"event": "one", "data": 1}
    socket.emit("two", 2)
    assert await client.get(2) == first
    assert await client.get(2) == first
    assert json.loads((await client.get(3))[0][1:]) == {"event": "two", "data": 2}


async def test_a_long_answer_is_the_same_again_in_its_client_s_coding(client: Numbered, probe: Probe) -> None:
    socket = await probe.sockets.get()
    for number in range(3):
        socket.emit("long", str(number) * POLL_BYTES)
    first = await client.get(2)
    assert len(first) == 1  # the rest has its turn
    raw = await client._connect()
    answer = await raw.request("GET", f"{client.target}&seq=2", accept_encoding="gzip")
    assert answer.headers["content-encoding"] == "gzip"
    assert gzip.decompress(bytes(answer.body or b"")).decode() == first[0]
    assert [(await client.get(number))[0][-9:-2] for number in (3, 4)] == ["1" * 7, "2" * 7]


async def test_a_poll_that_comes_again_while_it_waits_takes_its_place(client: Numbered, probe: Probe) -> None:
    first = await client.wait(2)
    second = await client.begin("GET", 2)
    assert (await result(first))[0] == 503
    (await probe.sockets.get()).emit("one", 1)
    status, body = await result(second)
    assert (status, json.loads(body[1:])["data"]) == (200, 1)
    assert await client.get(2) == [body]


@pytest.mark.parametrize("reset", [True, False])
async def test_a_poll_that_is_broken_off_may_come_again(client: Numbered, probe: Probe, reset: bool) -> None:
    first = await client.wait(2)
    session = client.session
    if reset:
        first.abort()
    else:
        first.writer.write_eof()
        assert await result(first) == (200, "6")
    await until(lambda: session._return_timer is not None)
    (await probe.sockets.get()).emit("one", 1)
    assert await client.get(2) == ["6"]  # whatever its client was told, it is the same
    assert session._return_timer is None
    assert json.loads((await client.get(3))[0][1:])["data"] == 1
    assert probe.ends.empty()


async def test_an_answer_that_a_reset_destroyed_comes_again(client: Numbered, probe: Probe) -> None:
    session = client.session
    first = await client.wait(2)
    (await probe.sockets.get()).emit("one", 1)  # the answer is decided, and its client gone before it is written
    first.abort()
    await until(lambda: session._poll is None)
    assert json.loads((await client.get(2))[0][1:])["data"] == 1


async def test_a_kept_connection_that_is_reset_behind_the_request(client: Numbered, probe: Probe) -> None:
    kept = await client._connect()
    body = ("4" + event("note", "once")).encode()
    head = f"POST {client.target}&seq=%d HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    await kept.send((head % 2).encode() + body)
    assert (await kept.answer()).status_code == 200
    await kept.send((head % 3).encode() + body)
    kept.abort()
    assert await client.ask("POST", 3, body) == (200, "ok")
    assert [await probe.events.get() for _ in range(2)] == ["once", "once"]
    await client.put(4, "4" + event("note", "last"))
    assert await probe.events.get() == "last"


async def test_a_client_that_does_not_come_back_is_gone(
    client: Numbered, probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RETURN_TIME, 0.05)
    (await client.wait(2)).abort()
    end = await probe.ends.get()
    assert end[1:] == (CloseCode.ABNORMAL, "the client broke off a request and did not come back")


async def test_a_lower_number_changes_nothing(client: Numbered, probe: Probe) -> None:
    (await probe.sockets.get()).emit("one", 1)
    await client.get(2)
    waiting = await client.wait(3)
    assert await client.get(0) == ["6"]
    assert await client.get(2) == ["6"]
    await client.put(0, "4" + event("note", 0))
    await client.put(1, "4" + event("note", 1))
    await client.put(2, "4" + event("note", 2))
    assert await probe.events.get() == 2
    assert client.session._poll is not None
    waiting.close()


@pytest.mark.parametrize("number", ["x", "-1", "1e999", "", "1.0", "+2", "%C2%B2", "9" * 400])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_is_no_number_ends_the_session(client: Numbered, probe: Probe, method: str, number: str) -> None:
    assert code(await client.ask(method, number, b"6" if method == "POST" else None)) == (400, BAD)
    assert (await probe.ends.get())[1] == CloseCode.PROTOCOL_ERROR


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_request_without_a_number_ends_the_session(client: Numbered, probe: Probe, method: str) -> None:
    assert code(await client.request(method, b"6" if method == "POST" else None)) == (400, BAD)
    assert (await probe.ends.get())[1] == CloseCode.PROTOCOL_ERROR


@pytest.mark.parametrize("number", [3, 4, 10**14])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_number_that_is_left_out_ends_the_session(
    client: Numbered, probe: Probe, method: str, number: int
) -> None:
    assert code(await client.ask(method, number, b"6" if method == "POST" else None)) == (400, BAD)
    assert (await probe.ends.get())[1] == CloseCode.PROTOCOL_ERROR


async def test_a_poll_that_was_held_up_on_its_way_takes_nothing_from_the_one_that_waits(
    client: Numbered, probe: Probe
) -> None:
    waiting = await client.wait(2)
    late = await client.begin("GET", 2)
    assert (await result(waiting))[0] == 503  # nothing that its client could take for the answer: so it asks again
    again = await client.begin("GET", 2)
    assert (await result(late))[0] == 503
    (await probe.sockets.get()).emit("one", 1)
    status, body = await result(again)
    assert (status, json.loads(body[1:])["data"]) == (200, 1)


# Requests with packets.


@pytest.mark.parametrize("status", [200, 400])
async def test_packets_that_are_being_taken_are_not_taken_twice(start_worker: StartWorker, status: int) -> None:
    with Probe() as probe:
        worker = await start_worker(probe.run)
        client = await shaken(await opened(worker))
        session = client.session
        session.pause_reading()
        last = "x" if status == 400 else "6"
        body = "\x1e".join(("6", "4" + event("note", "once"), last)).encode()
        first = await client.begin("POST", 2, body)
        await until(lambda: session._posted is not None)
        again = [await client.begin("POST", 2, body) for _ in range(2)]
        first.abort()
        for _ in range(20):
            await asyncio.sleep(0)
        session.resume_reading()
        assert [(await result(each))[0] for each in again] == [status, status]
        assert await probe.events.get() == "once"
        assert probe.events.empty()
        if status == 400:
            assert (await probe.ends.get())[1] == CloseCode.PROTOCOL_ERROR
        else:
            assert await client.ask("POST", 2, body) == (200, "ok")
            assert probe.events.empty()


async def test_packets_whose_first_copy_stopped_half_way_are_taken_from_the_second(
    client: Numbered, probe: Probe
) -> None:
    session = client.session
    body = ("4" + event("note", "whole")).encode()
    first = await client.begin("POST", 2, body[:10], len(body) - 10)
    await until(lambda: session.cut_off is not None)
    assert await client.ask("POST", 2, body) == (200, "ok")
    assert await probe.events.get() == "whole"
    assert (await result(first))[0] == 503
    assert session.cut_off is None
    await client.put(3, "4" + event("note", "next"))
    assert await probe.events.get() == "next"


async def test_packets_that_were_broken_off_may_come_again(client: Numbered, probe: Probe) -> None:
    session = client.session
    body = ("4" + event("note", "whole")).encode()
    first = await client.begin("POST", 2, body[:10], len(body) - 10)
    await until(lambda: session.cut_off is not None)
    first.abort()
    await until(lambda: session._return_timer is not None)
    await client.put(2, body.decode())
    assert session._return_timer is None
    assert await probe.events.get() == "whole"


async def test_the_next_packets_wait_for_the_answer_to_those_before(client: Numbered, probe: Probe) -> None:
    session = client.session
    session.pause_reading()
    first = await client.begin("POST", 2, b"6")
    await until(lambda: session._posted is not None)
    assert code(await client.ask("POST", 3, b"6")) == (400, BAD)
    assert (await probe.ends.get())[1] == CloseCode.PROTOCOL_ERROR
    first.close()


async def test_packets_over_the_limit_are_refused_again(start_worker: StartWorker) -> None:
    worker = await start_worker(max_http_buffer_size=1000)
    client = await opened(worker)
    for _ in range(2):
        raw = await client._connect()
        head = f"POST {client.target}&seq=1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        await raw.send(head.encode() + b"3e9\r\n4" + b"x" * 1000 + b"\r\n0\r\n\r\n")
        assert (await raw.answer()).status_code == 413


# The end.


async def test_what_was_told_last_is_told_again_after_the_end(
    client: Numbered, probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.put(2, "6")
    waiting = await client.wait(2)
    (await probe.sockets.get()).disconnect(4321, "enough")
    told = [(await result(waiting))[1]]
    assert '"code":4321' in told[0]
    while not told[-1].endswith("1"):
        told.append("\x1e".join(await client.get(len(told) + 2)))
    monkeypatch.setattr(LAST_POLL, 0.05)
    assert await client.ask("GET", len(told) + 1) == (200, told[-1])
    assert await client.ask("POST", 2, b"6") == (200, "ok")
    assert await client.ask("POST", 3, b"6") == (200, "ok")  # it has yet to read why this was for nothing
    assert code(await client.ask("GET", len(told) + 2)) == (400, UNKNOWN)
    await probe.ends.get()
    client.session._over()
    await until(lambda: len(server(client.worker)) == 0)


async def test_the_client_s_own_end_may_come_again(client: Numbered, probe: Probe) -> None:
    await client.put(2, "4" + event("note", "last"), "1")
    assert (await probe.ends.get())[1] == CloseCode.NORMAL
    await client.put(2, "4" + event("note", "last"), "1")
    assert await probe.events.get() == "last"
    assert probe.events.empty()
    assert code(await client.ask("POST", 3, b"6")) == (400, UNKNOWN)


async def test_a_body_that_has_not_come_at_the_end(client: Numbered, probe: Probe) -> None:
    session = client.session
    first = await client.begin("POST", 2, b"6", 100)
    await until(lambda: session.cut_off is not None)
    (await probe.sockets.get()).disconnect()
    assert await result(first) == (200, "ok")
    await client.put(2, "6")
    await probe.ends.get()


async def test_after_the_upgrade_no_request_is_served_and_none_does_harm(client: Numbered, probe: Probe) -> None:
    websocket = await client.worker.websocket(f"{ENGINE}websocket&sid={client.sid}")
    waiting = await client.wait(2)
    await websocket.send_text("2probe")
    assert await websocket.next_text() == "3probe"
    assert await result(waiting) == (200, "6")
    assert await client.get(2) == ["6"]  # beside the upgrade, too
    await client.put(2, "4" + event("note", "by polling"))
    await client.put(2, "4" + event("note", "by polling"))
    session = client.session
    await websocket.send_text("5")
    await until(lambda: session.websocket is not None)
    assert isinstance(session, NumberedSession)
    assert session.numbering is None
    for number in (1, 2, 3, "x"):
        assert code(await client.ask("GET", number)) == (400, BAD)
        assert code(await client.ask("POST", number, b"4" + event("note", "late").encode())) == (400, BAD)
    await websocket.send_text("4" + event("note", "by WebSocket"))
    assert [await probe.events.get() for _ in range(2)] == ["by polling", "by WebSocket"]
    await websocket.send_text("1")
    await probe.ends.get()


async def test_an_upgrade_is_a_return(client: Numbered, probe: Probe) -> None:
    session = client.session
    (await client.wait(2)).abort()
    await until(lambda: session._return_timer is not None)
    websocket = await client.worker.websocket(f"{ENGINE}websocket&sid={client.sid}")
    await websocket.send_text("5")
    await until(lambda: session.websocket is not None)
    assert session._return_timer is None
    await websocket.send_text("1")
    await probe.ends.get()


# Through another worker.


@pytest.fixture
async def astray(start_worker: StartWorker, probe: Probe) -> Numbered:
    """A session whose requests arrive at another worker."""
    owner = await start_worker(probe.run, name="owner")
    other = await start_worker(name="other")
    await until(lambda: other.service._client.workers.find(owner.worker.id))
    return await shaken(await opened(owner, other))


async def test_a_poll_that_is_broken_off_elsewhere_may_come_again(astray: Numbered, probe: Probe) -> None:
    session = astray.session
    (await astray.wait(2)).abort()
    await until(lambda: session._return_timer is not None)
    assert await astray.get(2) == ["6"]
    waiting = await astray.wait(3)
    again = await astray.begin("GET", 3)
    assert (await result(waiting))[0] == 503
    (await probe.sockets.get()).emit("one", 1)
    assert "one" in (await result(again))[1]
    assert "one" in (await astray.get(3))[0]


async def test_a_client_that_ends_its_own_direction_elsewhere_is_to_ask_again(astray: Numbered, probe: Probe) -> None:
    session = astray.session
    waiting = await astray.wait(2)
    waiting.writer.write_eof()
    assert (await result(waiting))[0] == 503  # no noop: the answer may be another one
    await until(lambda: session._return_timer is not None)
    assert await astray.get(2) == ["6"]


async def test_packets_that_come_again_by_another_worker(astray: Numbered, probe: Probe) -> None:
    body = ("4" + event("note", "once")).encode()
    first = await astray.begin("POST", 2, body[:10], len(body) - 10)
    first.abort()
    for _ in range(2):
        assert await astray.ask("POST", 2, body) == (200, "ok")
    assert await probe.events.get() == "once"
    assert probe.events.empty()
