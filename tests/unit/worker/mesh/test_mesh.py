"""Workers' links to each other, by real connections: rooms, broadcasts, breaks, and who is known."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from support.network.certificates import Authority
from support.worker.meshed import Cluster, Worker
from support.worker.running import until

from socketcluster_runtime.errors import AddressInUseError
from socketcluster_runtime.tls.rpc_tls import load_rpc_tls
from socketcluster_worker.mesh import frames, neighbour
from socketcluster_worker.mesh import mesh as mesh_module


async def test_a_broadcast_goes_to_the_workers_that_have_members_and_to_no_other(cluster: Cluster) -> None:
    one, other, third = [await cluster.add(letter * 8) for letter in "abc"]
    cluster.tell()
    await cluster.linked()
    other.mesh.joined("/", "room")
    third.mesh.joined("/", "elsewhere")
    await until(lambda: one.mesh.find("/", ["room"]) and one.mesh.find("/", ["elsewhere"]))
    one.broadcast(b"to the room", "room")
    one.broadcast(b"to nobody", "nowhere")
    one.broadcast(b"to both", "room", "elsewhere")
    one.broadcast(b"to all")
    await until(lambda: b"to all" in other.heard and b"to all" in third.heard)
    assert other.heard == [b"to the room", b"to both", b"to all"]
    assert third.heard == [b"to both", b"to all"]
    assert one.heard == []
    other.mesh.left("/", "room")
    await until(lambda: not one.mesh.find("/", ["room"]))


async def test_one_client_is_reached_by_its_id_which_names_its_worker(two: tuple[Worker, Worker]) -> None:
    one, other = two
    assert one.mesh.find("/", ["bbbbbbbb-and-more"]) == one.mesh.neighbours["bbbbbbbb"].bit
    assert one.mesh.find("/", ["aaaaaaaa-and-more"]) == 0
    assert other.mesh.find("/none", None) == 0


async def test_a_worker_alone_asks_and_sends_nothing(cluster: Cluster) -> None:
    alone = await cluster.add("aaaaaaaa")
    cluster.tell()
    await alone.mesh.meet()
    assert alone.mesh.neighbours == {}
    assert alone.mesh.find("/", None) == 0


async def test_a_join_is_known_elsewhere_before_anything_that_is_said_later(two: tuple[Worker, Worker]) -> None:
    """What the kernel has for a worker from two connections it reads in the order in which it came."""
    one, other = two
    read: list[int] = []
    ours, theirs = await _connection(read, one)
    for number in range(50):
        other.mesh.joined("/", f"room {number}")
        theirs.write(b"x")  # what a client is told behind the join
        await theirs.drain()
        await until(lambda number=number: len(read) > number)  # type: ignore[misc]
        assert read[number], f"join {number} came behind what was said later"
    theirs.close()
    ours.close()


async def _connection(read: list[int], one: Worker) -> tuple[asyncio.Server, asyncio.StreamWriter]:
    class Reader(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            for _ in data:
                read.append(one.mesh.find("/", [f"room {len(read)}"]))

    server = await asyncio.get_running_loop().create_server(Reader, "127.0.0.1", 0)
    _reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    return server, writer


async def test_broken_connections_cost_nothing_that_was_sent(two: tuple[Worker, Worker], cluster: Cluster) -> None:
    one, other = two
    sent = []
    for number in range(300):
        packed = b"%d" % number
        sent.append(packed)
        one.broadcast(packed)
        if number % 50 == 25:
            stream = (one if number % 100 == 25 else other).mesh.neighbours
            for each in stream.values():
                if each.stream is not None:
                    each.stream.abort()
        if number % 7 == 0:
            await asyncio.sleep(0)
    await until(lambda: len(other.heard) == len(sent))
    assert other.heard == sent
    await cluster.linked()


async def test_workers_that_do_not_reach_each_other_use_the_store_and_lose_nothing_by_the_change(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbour, "PATIENCE", 0.001)
    one, other = await cluster.add("aaaaaaaa"), await cluster.add("bbbbbbbb")
    address, other.address = other.address, ("127.0.0.1", one.address[1])  # its own: it greets itself
    with capture_logs() as lines:
        cluster.tell(one)
        await until(lambda: one.mesh.neighbours["bbbbbbbb"].by_store)
        one.broadcast(b"1")
        one.broadcast(b"2")
        await until(lambda: len(one.published) == 2)
        assert one.published == [(b"1", {"bbbbbbbb": 1}), (b"2", {"bbbbbbbb": 2})]
        assert other.mesh.takes(one.mesh.origin, {"bbbbbbbb": 1})
        other.address = address
        cluster.tell()
        await cluster.linked()
        await until(lambda: other.heard == [b"2"])  # the first one came by the store
        assert not other.mesh.takes(one.mesh.origin, {"bbbbbbbb": 2})
        one.broadcast(b"3")
        await until(lambda: other.heard == [b"2", b"3"])
    told = [line["event"] for line in lines if "reach each other" in line["event"]]
    assert told == [
        "workers do not reach each other: broadcasts between them go by the stores",
        "workers reach each other again",
    ]


async def test_what_came_by_the_store_for_others_or_from_oneself_is_not_taken(two: tuple[Worker, Worker]) -> None:
    one, other = two
    assert not other.mesh.takes(one.mesh.origin, {"cccccccc": 1})
    assert not other.mesh.takes(other.mesh.origin, {"bbbbbbbb": 1})


async def test_a_worker_that_starts_anew_takes_the_place_of_the_one_before(cluster: Cluster) -> None:
    one, former = await cluster.add("aaaaaaaa"), await cluster.add("bbbbbbbb")
    cluster.tell()
    await cluster.linked()
    former.mesh.joined("/", "room")
    one.broadcast(b"before")
    await former.mesh.close()
    cluster.workers.remove(former)
    again = await cluster.add("bbbbbbbb")
    cluster.tell()
    await cluster.linked()
    assert one.mesh.find("/", ["room"]) == 0
    one.broadcast(b"after")
    await until(lambda: again.heard)
    assert again.heard == [b"after"]


async def test_a_worker_that_connects_again_before_its_end_is_known_is_let_in(
    two: tuple[Worker, Worker], cluster: Cluster
) -> None:
    one, other = two
    former = other.mesh.neighbours["aaaaaaaa"].stream
    asyncio.get_running_loop().call_soon(one.mesh.neighbours["bbbbbbbb"].broken)  # on one side only
    one.mesh.neighbours["bbbbbbbb"].stream = None
    cluster.tell()
    await until(lambda: other.mesh.neighbours["aaaaaaaa"].stream not in (None, former))
    await cluster.linked()
    assert former is not None
    assert not former.open


async def test_who_is_gone_for_good_is_forgotten(
    two: tuple[Worker, Worker], cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mesh_module, "KEPT", 0.01)
    one, other = two
    await other.mesh.close()
    cluster.workers.remove(other)
    cluster.tell()
    await until(lambda: not one.mesh.neighbours)
    assert one.mesh.find("/", None) == 0
    again = await cluster.add("cccccccc")
    cluster.tell()
    await cluster.linked()
    assert one.mesh.neighbours[again.mesh.worker_id].bit == 1  # the bit is another's now


async def test_a_worker_that_no_store_knows_is_kept_while_it_is_linked(
    two: tuple[Worker, Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mesh_module, "KEPT", 0.0)
    one, other = two
    one.mesh.know({})
    one.broadcast(b"still there")
    await until(lambda: other.heard)


async def test_a_new_worker_waits_for_the_others_but_not_for_ever(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = await cluster.add("aaaaaaaa"), await cluster.add("bbbbbbbb")
    cluster.tell()
    await other.mesh.meet()
    assert other.mesh.neighbours["aaaaaaaa"].stream is not None
    monkeypatch.setattr(mesh_module, "MEETING_TIME", 0.01)
    one.mesh.know({"bbbbbbbb": other.address, "zzzzzzzz": ("127.0.0.1", one.address[1])})
    with capture_logs() as lines:
        await one.mesh.meet()
    assert [line["workers"] for line in lines if line["event"] == "other workers are not reached"] == [["zzzzzzzz"]]


@pytest.mark.parametrize(
    "frame", [b"?", b"b", frames.JOINED + b"\xc1", frames.ROOMS + b"\x01", frames.LISTENS + b"\xff", frames.RECEIVED]
)
async def test_what_no_worker_says_ends_the_link_and_it_begins_anew(
    two: tuple[Worker, Worker], cluster: Cluster, frame: bytes
) -> None:
    one, other = two
    former = one.mesh.neighbours["bbbbbbbb"].stream
    with capture_logs() as lines:
        other.mesh.neighbours["aaaaaaaa"].say_now(frame)
        await until(lambda: one.mesh.neighbours["bbbbbbbb"].stream not in (None, former))
        await cluster.linked()
    assert any(line["event"] == "a worker said what none says" for line in lines)


async def test_a_broadcast_that_cannot_be_delivered_keeps_none_behind_it(two: tuple[Worker, Worker]) -> None:
    one, other = two

    def receive(packed: bytes) -> None:
        other.heard.append(packed)
        if packed == b"bad":
            raise RuntimeError("the application's")

    other.mesh.serve("/", receive, lambda _packed, _numbers: None)
    with capture_logs() as lines:
        one.broadcast(b"bad")
        one.broadcast(b"good")
        await until(lambda: other.heard == [b"bad", b"good"])
    assert [line["event"] for line in lines] == ["a broadcast of another worker could not be delivered"]


async def test_workers_of_one_authority_are_linked_by_tls(cluster: Cluster, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "own")
    certificates = [load_rpc_tls(*authority.issue(name), authority.cert, "socketcluster") for name in ("x", "y")]
    one, other = [await cluster.add(letter * 8, tls) for letter, tls in zip("ab", certificates, strict=True)]
    cluster.tell()
    await cluster.linked()
    one.broadcast(b"hidden")
    await until(lambda: other.heard == [b"hidden"])
    without = await cluster.add("cccccccc")
    cluster.workers.remove(without)
    try:
        without.mesh.know({"bbbbbbbb": other.address})
        one.mesh.know({"bbbbbbbb": other.address, "cccccccc": without.address})
        one.broadcast(b"more")
        await until(lambda: b"more" in other.heard)
        assert one.mesh.neighbours["cccccccc"].stream is None
        assert without.heard == []
    finally:
        await without.mesh.close()


async def test_a_port_that_is_taken_is_told(cluster: Cluster) -> None:
    one = await cluster.add("aaaaaaaa")
    other = Worker("bbbbbbbb")
    with pytest.raises(AddressInUseError, match="for other workers"):
        other.mesh.listen(f"127.0.0.1:{one.address[1]}")
    await other.mesh.close()
