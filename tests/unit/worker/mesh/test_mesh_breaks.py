"""What becomes of a link that breaks at a bad moment, or that one side has forgotten; and who may wait to be let in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from support.network.certificates import Authority
from support.worker.meshed import KEY, Cluster, Worker
from support.worker.running import until

from socketcluster_runtime.sockets import entrance
from socketcluster_runtime.sockets.framed import FramedStream
from socketcluster_runtime.tls.rpc_tls import load_rpc_tls
from socketcluster_worker.mesh import frames, neighbour
from socketcluster_worker.mesh import mesh as mesh_module
from socketcluster_worker.mesh.frames import Hello
from socketcluster_worker.mesh.greeting import Greeting
from socketcluster_worker.mesh.neighbour import Neighbour


class StandIn:
    """A worker ``aaaaaaaa`` of which a test says what it says, and when."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.ended = False

    async def meet(self, worker: Worker) -> FramedStream:
        """Connect, and show who it is."""
        met = asyncio.Event()

        def meets(stream: FramedStream, _hello: Hello) -> None:
            stream.received = self.heard.append
            met.set()

        greeting = Greeting(KEY, "aaaaaaaa", "aaaaaaaa's process", "app", met=meets, ended=self._end, accepts=False)
        await asyncio.get_running_loop().create_connection(lambda: greeting.stream, *worker.address)
        await met.wait()
        return greeting.stream

    async def link(self, worker: Worker) -> FramedStream:
        """Connect, and say that nothing has come before."""
        stream = await self.meet(worker)
        stream.send(frames.write_received(0))
        await until(lambda: self.heard and self.heard[-1][:1] == frames.ROOMS)
        stream.send(frames.ROOMS + frames.encode({"/": []}))
        await until(lambda: worker.mesh.find("/", None))
        return stream

    def _end(self, _stream: FramedStream) -> None:
        self.ended = True

    @property
    def broadcasts(self) -> list[bytes]:
        """What was broadcast to it."""
        return [frames.read_broadcast(frame).packed for frame in self.heard if frame[:1] == frames.BROADCAST]


def counted_dials(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> list[Greeting]:
    """Return where there will be a greeting for each attempt to link."""
    dials: list[Greeting] = []
    greet = worker.mesh._greeting

    def counted(*, accepts: bool) -> Greeting:
        greeting = greet(accepts=accepts)
        if not accepts:
            dials.append(greeting)
        return greeting

    monkeypatch.setattr(worker.mesh, "_greeting", counted)
    return dials


async def test_a_link_that_dies_before_it_goes_on_leaves_the_store_as_the_way(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await cluster.add("bbbbbbbb")
    worker.mesh.know({"aaaaaaaa": ("127.0.0.1", 1)})
    await StandIn().link(worker)
    monkeypatch.setattr(neighbour, "PATIENCE", 0.001)
    again = await StandIn().meet(worker)
    worker.broadcast(b"by the store")
    again.abort()
    await until(lambda: worker.published == [(b"by the store", {"aaaaaaaa": 1})])


async def test_a_link_on_which_nothing_is_said_leaves_the_store_as_the_way(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await cluster.add("bbbbbbbb")
    worker.mesh.know({"aaaaaaaa": ("127.0.0.1", 1)})
    await StandIn().link(worker)
    monkeypatch.setattr(neighbour, "PATIENCE", 0.001)
    silent = StandIn()
    stream = await silent.meet(worker)
    worker.broadcast(b"by the store")
    await until(lambda: worker.published == [(b"by the store", {"aaaaaaaa": 1})])
    stream.send(frames.write_received(1))
    worker.broadcast(b"by the link")
    await until(lambda: silent.broadcasts == [b"by the link"])


async def test_a_connection_that_goes_on_late_does_not_displace_the_one_behind_it(cluster: Cluster) -> None:
    worker = await cluster.add("bbbbbbbb")
    worker.mesh.know({})
    early, late = StandIn(), StandIn()
    first = await early.meet(worker)
    await late.link(worker)
    first.send(frames.write_received(0))
    await until(lambda: early.ended)
    worker.broadcast(b"to the second")
    await until(lambda: late.broadcasts == [b"to the second"])
    assert [frame[:1] for frame in early.heard] == [frames.RECEIVED]


async def test_a_link_is_dialed_once_while_it_is_not_known_what_has_come(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = await cluster.add("aaaaaaaa"), await cluster.add("bbbbbbbb")
    dials, resumed = counted_dials(one, monkeypatch), one.mesh._resumed
    held: list[Callable[[], None]] = []

    def hold(stream: FramedStream, *args: Any) -> None:
        stream.pause_reading()
        held.append(partial(go_on, stream, *args))

    def go_on(stream: FramedStream, *args: Any) -> None:
        resumed(stream, *args)
        stream.resume_reading()

    monkeypatch.setattr(one.mesh, "_resumed", hold)
    monkeypatch.setattr(mesh_module, "FIRST_PAUSE", 0.0)
    cluster.tell()
    await until(lambda: held)
    for _ in range(20):
        one.mesh._news.set()  # something happens to another link
        await asyncio.sleep(0)
    held.pop()()
    await until(lambda: one.mesh.neighbours["bbbbbbbb"].stream is not None)
    assert len(dials) == 1
    one.broadcast(b"hello")
    await until(lambda: other.heard == [b"hello"])


@pytest.mark.parametrize("who", ["sender", "receiver"])
async def test_what_only_one_side_has_forgotten_costs_and_doubles_nothing(
    two: tuple[Worker, Worker], cluster: Cluster, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    one, other = two
    for packed in (b"1", b"2", b"3"):
        one.broadcast(packed)
    await until(lambda: len(other.heard) == 3)
    forgets, remembers = (one, other) if who == "sender" else (other, one)
    for worker in two:
        worker.mesh.know({})
    stream = remembers.mesh.neighbours[forgets.mesh.worker_id].stream
    assert stream is not None
    stream.abort()
    monkeypatch.setattr(mesh_module, "KEPT", 0.001)
    await until(lambda: not forgets.mesh.neighbours)
    assert remembers.mesh.neighbours
    cluster.tell()
    await cluster.linked()
    one.broadcast(b"4")
    await until(lambda: b"4" in other.heard)
    assert other.heard == [b"1", b"2", b"3", b"4"]


async def test_few_of_those_that_were_forgotten_are_known_by_their_counts(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mesh_module, "KEPT", 0.0)
    monkeypatch.setattr(mesh_module, "MAX_FORGOTTEN", 2)
    worker = await cluster.add("bbbbbbbb")
    for letter in "cdef":
        worker.mesh.takes(f"{letter * 8}'s process", {"bbbbbbbb": 1})
    await until(lambda: not worker.mesh.neighbours)
    assert [*worker.mesh._forgotten] == ["eeeeeeee", "ffffffff"]


async def test_news_of_others_publish_nothing_again(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbour, "PATIENCE", 0.001)
    worker = await cluster.add("bbbbbbbb")
    worker.mesh.know({"aaaaaaaa": ("127.0.0.1", 1)})
    worker.broadcast(b"1")
    await until(lambda: worker.published)
    for letter in "cde":
        worker.mesh.know({"aaaaaaaa": ("127.0.0.1", 1), letter * 8: ("127.0.0.1", 1)})
        await until(lambda letter=letter: worker.mesh.neighbours[letter * 8].by_store)  # type: ignore[misc]
    assert worker.published == [(b"1", {"aaaaaaaa": 1})]


async def test_a_worker_that_stops_reading_for_a_while_gets_all_once_and_in_order(
    two: tuple[Worker, Worker], cluster: Cluster
) -> None:
    """More than the kernel takes, less than is kept; the connection breaks before the rest has gone, too."""
    one, other = two
    there = other.mesh.neighbours["aaaaaaaa"]
    sent = [b"%04d" % number + bytes(64 * 1024) for number in range(500)]
    for is_broken, part in ((False, sent[:250]), (True, sent[250:])):
        assert there.stream is not None
        there.stream.pause_reading()
        for packed in part:
            one.broadcast(packed)
            await asyncio.sleep(0)
        assert one.mesh.neighbours["bbbbbbbb"]._stuck is not None
        if is_broken:
            there.stream.abort()
        else:
            there.stream.resume_reading()
        await until(lambda part=part: part[-1] in other.heard)  # type: ignore[misc]
    assert other.heard == sent
    await cluster.linked()


async def test_a_worker_that_reads_gets_whatever_is_broadcast_in_one_turn(two: tuple[Worker, Worker]) -> None:
    one, other = two
    link = one.mesh.neighbours["bbbbbbbb"].stream
    sent = [b"%05d" % number + bytes(1000) for number in range(25_000)]
    sent.append(bytes(20 * 1024 * 1024))
    for packed in sent:
        one.broadcast(packed)
    await until(lambda: len(other.heard) == len(sent))
    assert other.heard == sent
    assert one.mesh.neighbours["bbbbbbbb"].stream is link


async def test_a_host_that_has_no_name_is_no_reason_to_stop(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mesh_module, "FIRST_PAUSE", 0.001)
    one, other = await cluster.add("aaaaaaaa"), await cluster.add("bbbbbbbb")
    dials = counted_dials(one, monkeypatch)
    with capture_logs() as lines:
        one.mesh.know({"bbbbbbbb": ("a..b", 1)})
        await until(lambda: len(dials) == 3)
        cluster.tell()
        await cluster.linked()
    assert other.is_linked(one)
    assert not [line for line in lines if line["log_level"] == "error"]


async def test_what_is_broadcast_before_others_are_known_reaches_them(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a controller broadcasts, say: it runs before a store is reached."""
    monkeypatch.setattr(mesh_module, "MAX_EARLY", 2)
    one, other = await cluster.add("aaaaaaaa"), await cluster.add("bbbbbbbb")
    one.broadcast(b"1")
    one.broadcast(b"2", "room")
    one.broadcast(b"too much")
    with capture_logs() as lines:
        cluster.tell()
    assert [line["lost"] for line in lines if line["log_level"] == "warning"] == [1]
    one.broadcast(b"3")
    await until(lambda: len(other.heard) == 3)
    assert other.heard == [b"1", b"2", b"3"]


async def test_a_worker_that_was_forgotten_while_it_was_dialed_is_dialed_again(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = await cluster.add("aaaaaaaa"), await cluster.add("bbbbbbbb")
    resume = asyncio.Event()
    keep_dialing = one.mesh._keep_dialing

    async def held(neighbour: Neighbour) -> None:
        await keep_dialing(neighbour)
        await resume.wait()

    monkeypatch.setattr(one.mesh, "_keep_dialing", held)
    monkeypatch.setattr(mesh_module, "KEPT", 0.0)
    one.mesh.know({"bbbbbbbb": other.address})
    one.mesh.know({})
    await until(lambda: not one.mesh.neighbours)
    cluster.tell()
    resume.set()
    await cluster.linked()


async def test_strangers_take_each_others_places_and_no_workers(
    two: tuple[Worker, Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entrance, "MAX_STRANGERS", 2)
    one, other = two
    ended: list[int] = []
    for number in range(5):
        silent = FramedStream(lambda _nonce: None, lambda _reason, number=number: ended.append(number))  # type: ignore[misc]
        await asyncio.get_running_loop().create_connection(lambda silent=silent: silent, *other.address)  # type: ignore[misc]
    await until(lambda: len(ended) == 3)
    assert ended == [0, 1, 2]
    assert len(other.mesh._greetings) == 2
    one.broadcast(b"still there")
    await until(lambda: other.heard)


async def test_renewed_certificates_are_for_new_links_and_break_none(cluster: Cluster, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "own")
    certificates = [load_rpc_tls(*authority.issue(name), authority.cert, "socketcluster") for name in ("x", "y")]
    one, other = [await cluster.add(letter * 8, tls) for letter, tls in zip("ab", certificates, strict=True)]
    cluster.tell()
    await cluster.linked()
    first, shown = one.mesh.neighbours["bbbbbbbb"].stream, certificate_of(one)
    for path, renewed in zip(certificates[1].files[:2], authority.issue("renewed"), strict=True):
        path.write_bytes(renewed.read_bytes())
    certificates[1].reload()
    one.broadcast(b"before")
    await until(lambda: other.heard)
    assert one.mesh.neighbours["bbbbbbbb"].stream is first
    assert certificate_of(one) == shown
    assert first is not None
    first.abort()
    one.broadcast(b"behind")
    await until(lambda: len(other.heard) == 2)
    assert other.heard == [b"before", b"behind"]
    assert certificate_of(one) != shown


def certificate_of(worker: Worker) -> object:
    """Return what its only neighbour has shown."""
    (there,) = worker.mesh.neighbours.values()
    assert there.stream is not None
    assert there.stream._transport is not None
    return there.stream._transport.get_extra_info("peercert")["serialNumber"]


async def test_nothing_goes_by_the_store_behind_the_end(two: tuple[Worker, Worker], cluster: Cluster) -> None:
    one, other = two
    there = one.mesh.neighbours["bbbbbbbb"]
    one.broadcast(b"the last one")
    cluster.workers.remove(one)
    await one.mesh.close()
    await until(lambda: other.heard == [b"the last one"])
    assert there._patience is None


async def test_a_link_that_ends_as_soon_as_it_begins_is_not_dialed_again_at_once(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mesh_module, "LONGEST_PAUSE", 60)
    one, _ = await cluster.add("aaaaaaaa"), await cluster.add("bbbbbbbb")
    cluster.tell()
    await cluster.linked()
    dials = counted_dials(one, monkeypatch)
    stream = one.mesh.neighbours["bbbbbbbb"].stream
    assert stream is not None
    stream.abort()
    await until(lambda: one.mesh._dialing)
    for _ in range(3):
        await asyncio.sleep(0)
    assert not dials
