"""What a worker does with packets of balancers that bring no client, and how balancers learn of clients' ends."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from support.network.ports import tcp_pair
from support.worker.running import until

from socketcluster_runtime.errors import ServiceError
from socketcluster_runtime.sockets.capacity import Room
from socketcluster_wire import handoff as wire
from socketcluster_worker.transport import handoff as module
from socketcluster_worker.transport.handoff import HandoffServer


class Worker:
    """What takes clients over, or has no room for them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.limit = 1_000_000
        self.taken: list[tuple[socket.socket, wire.Handoff]] = []
        self.room = Room(lambda: self.limit)
        self.ends: list[socket.socket] = []
        self.fails_at = -1
        self.server = HandoffServer(path, self.take_over, self.room)

    def take_over(self, client: socket.socket, handoff: wire.Handoff) -> None:
        if handoff.id == self.fails_at:
            raise ZeroDivisionError
        self.taken.append((client, handoff))

    def close(self) -> None:
        self.server.close()
        self.room.close()
        for end in (*(client for client, _ in self.taken), *self.ends):
            end.close()

    @property
    def links(self) -> int:
        return len(self.server._balancers)

    def hand_over(self, link: socket.socket, numbers: range) -> None:
        """Hand clients over, all before the worker has a turn; their own ends are kept."""
        for number in numbers:
            own, given = tcp_pair()
            with given:
                socket.send_fds(link, [packet(number)], [given.fileno()])
            own.setblocking(False)
            self.ends.append(own)

    async def link(self) -> socket.socket:
        """Return the link of another balancer."""
        before = self.links
        link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        link.connect(str(self.path))
        link.setblocking(False)
        await until(lambda: self.links == before + 1)
        return link


@pytest.fixture
async def worker(folder: Path) -> AsyncIterator[Worker]:
    made = Worker(folder / "handoff.sock")
    made.server.start()
    yield made
    made.close()


@pytest.fixture
def client() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client's end, and the end that is handed over."""
    own, given = socket.socketpair()
    own.setblocking(False)
    with own, given:
        yield own, given


def packet(number: int = 1) -> bytes:
    return wire.encode(wire.Handoff(number, b"GET / HTTP/1.1\r\n\r\n", tls=False, client=("10.0.0.1", 5)))


async def received(link: socket.socket) -> bytes:
    return await asyncio.get_running_loop().sock_recv(link, wire.MAX_REPLY_BYTES)


def is_closed(end: socket.socket) -> bool:
    try:
        return end.recv(1) == b""
    except BlockingIOError:
        return False


async def test_a_client_is_acknowledged_and_its_end_told_once(
    worker: Worker, client: tuple[socket.socket, socket.socket]
) -> None:
    with await worker.link() as link:
        socket.send_fds(link, [packet(7)], [client[1].fileno()])
        assert wire.decode_reply(await received(link)) == wire.decode_reply(wire.encode_ack(7))
        [(taken, told)] = worker.taken
        assert (told.id, told.client, taken.getblocking()) == (7, ("10.0.0.1", 5), False)
        os.close(taken.detach())  # as uvloop does
        taken.close()
        assert wire.decode_reply(await received(link)) == wire.decode_reply(wire.encode_ended([7]))


async def test_those_that_came_together_are_acknowledged_together_and_served_then(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[int] = []  # when an acknowledgement was made
    encode_ack = wire.encode_ack

    def encode(*numbers: int) -> bytes:
        served.append(len(worker.taken))
        return encode_ack(*numbers)

    monkeypatch.setattr(wire, "encode_ack", encode)
    with await worker.link() as link:
        worker.hand_over(link, range(5))
        assert await received(link) == encode_ack(0, 1, 2, 3, 4)
        assert [handoff.id for _, handoff in worker.taken] == [0, 1, 2, 3, 4]
        assert served == [0]


async def test_those_before_a_packet_that_ends_a_link_are_acknowledged(
    worker: Worker,
) -> None:
    with await worker.link() as link:
        worker.hand_over(link, range(2))
        link.send(b"\xff")
        assert await received(link) == wire.encode_ack(0, 1)
        assert await received(link) == b""
    assert [handoff.id for _, handoff in worker.taken] == [0, 1]


async def test_none_of_those_that_could_not_be_acknowledged_is_served(worker: Worker) -> None:
    with await worker.link() as link:
        worker.hand_over(link, range(3))
        link.shutdown(socket.SHUT_RD)
        await until(lambda: worker.links == 0)
    for end in worker.ends:
        assert is_closed(end)
    assert worker.taken == []


async def test_one_that_shows_a_fault_costs_none_that_came_with_it(worker: Worker) -> None:
    worker.fails_at = 1
    with capture_logs() as lines, await worker.link() as link:
        worker.hand_over(link, range(3))
        assert await received(link) == wire.encode_ack(0, 1, 2)
        assert await received(link) == wire.encode_ended([1])
        assert [is_closed(end) for end in worker.ends] == [False, True, False]
    assert [handoff.id for _, handoff in worker.taken] == [0, 2]
    assert [line["event"] for line in lines] == ["a client could not be served"]


@pytest.mark.parametrize(
    ("data", "kinds", "event"),
    [
        (packet(), "", "a handoff packet without a descriptor"),
        (packet(), "p", "a descriptor that is no socket"),
        (b"\xff" + packet()[1:], "s", "clients could not be taken over: their balancer gives them to others"),
        (packet()[:5], "s", "clients could not be taken over: their balancer gives them to others"),
    ],
    ids=["no descriptor", "no socket", "another version", "cut off"],
)
async def test_a_packet_without_a_client_ends_its_link_alone(
    worker: Worker, client: tuple[socket.socket, socket.socket], data: bytes, kinds: str, event: str
) -> None:
    other = await worker.link()
    reading, writing = os.pipe()
    descriptors = [{"p": writing, "s": client[1].fileno()}[kind] for kind in kinds]
    with capture_logs() as lines, other:
        with await worker.link() as link:
            socket.send_fds(link, [data], descriptors)
            os.close(writing)
            client[1].close()
            assert await received(link) == b""  # no acknowledgement either
        assert worker.links == 1
        assert (worker.taken, os.read(reading, 1)) == ([], b"")  # its copy of the descriptor is closed
        os.close(reading)
        if "s" in kinds:
            assert is_closed(client[0])
        assert [line["event"] for line in lines if line["log_level"] == "warning"] == [event]


async def test_a_client_without_room_is_declined_and_the_link_goes_on(
    worker: Worker, client: tuple[socket.socket, socket.socket]
) -> None:
    with await worker.link() as link:
        worker.limit = 3
        socket.send_fds(link, [packet(1)], [client[1].fileno()])
        assert await received(link) == wire.encode_decline(1)
        assert (worker.taken, worker.room.refused, worker.room.full) == ([], 1, True)
        worker.limit = 1_000_000
        socket.send_fds(link, [packet(2)], [client[1].fileno()])
        assert await received(link) == wire.encode_ack(2)


async def test_a_descriptor_that_the_kernel_could_not_give_is_declined(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(sock: socket.socket, *_: object) -> tuple[bytes, list[int], int, None]:
        return sock.recv(wire.MAX_PACKET_BYTES), [], socket.MSG_CTRUNC, None

    monkeypatch.setattr(socket, "recv_fds", without)
    with await worker.link() as link:
        link.send(packet(4))
        assert await received(link) == wire.encode_decline(4)
        link.send(b"\xff")
        assert await received(link) == b""  # nobody knows whom that was to decline
    assert (worker.room.refused, worker.links) == (2, 0)


async def test_a_link_that_broke_is_forgotten(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ConnectionResetError("by peer")

    with capture_logs() as lines, await worker.link() as link:
        monkeypatch.setattr(socket, "recv_fds", broken)
        link.send(b"x")
        await until(lambda: worker.links == 0)
    assert [line["event"] for line in lines] == ["a balancer's connection broke"]


async def take(worker: Worker, link: socket.socket, numbers: range) -> None:
    """Have clients taken over."""
    for number in numbers:
        own, given = socket.socketpair()
        with own, given:
            socket.send_fds(link, [packet(number)], [given.fileno()])
            assert await received(link) == wire.encode_ack(number)


async def test_ends_wait_while_the_balancer_reads_nothing(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ENDED_INTERVAL", 0.001)
    monkeypatch.setattr(wire, "MAX_IDS", 2)
    unread = True
    asked = 0

    def is_unread(_: socket.socket) -> bool:
        nonlocal asked
        asked += 1
        return unread

    monkeypatch.setattr(module, "_unread", is_unread)
    with await worker.link() as link:
        await take(worker, link, range(5))
        for client, _ in worker.taken:
            client.close()
        await until(lambda: asked >= 2)
        with pytest.raises(BlockingIOError):
            link.recv(1)
        unread = False
        got = [await received(link) for _ in range(3)]
    assert got == [wire.encode_ended(numbers) for numbers in ([0, 1], [2, 3], [4])]


@pytest.mark.parametrize("error", [BlockingIOError, BrokenPipeError])
async def test_ends_that_cannot_be_told_now_are_told_later_unless_the_link_is_gone(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, error: type[OSError]
) -> None:
    monkeypatch.setattr(module, "ENDED_INTERVAL", 0.001)
    failed = False

    def fail_once(_: socket.socket) -> bool:
        nonlocal failed
        if not failed:
            failed = True
            raise error
        return False

    monkeypatch.setattr(module, "_unread", fail_once)
    with await worker.link() as link:
        await take(worker, link, range(2))
        worker.taken[0][0].close()
        await until(lambda: failed)
        worker.taken[1][0].close()
        told = [0, 1] if error is BlockingIOError else [1]
        assert await received(link) == wire.encode_ended(told)


async def test_nothing_is_told_of_clients_whose_link_has_ended(worker: Worker) -> None:
    with await worker.link() as link:
        await take(worker, link, range(2))
        worker.taken[0][0].close()  # is waiting to be told
    await until(lambda: worker.links == 0)
    worker.taken[1][0].close()


async def test_links_and_the_path_go_with_the_server(folder: Path) -> None:
    worker = Worker(folder / "handoff.sock")
    worker.path.touch()  # of a worker that was killed
    worker.server.start()
    assert worker.path.stat().st_mode & 0o777 == 0o600
    with await worker.link() as link:
        worker.server.close()
        worker.server.close()
        assert await received(link) == b""
        assert not worker.path.exists()


@pytest.mark.parametrize("make", [lambda folder: folder / "missing" / "s", lambda folder: folder / ("x" * 120)])
async def test_a_path_that_cannot_be_is_told(folder: Path, make: Callable[[Path], Path]) -> None:
    worker = Worker(make(folder))
    with pytest.raises(ServiceError, match="cannot listen for balancers at"):
        worker.server.start()
    worker.server.close()
