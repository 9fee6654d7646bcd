"""The store client against a store of the test's own, which answers when and what the test wants."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest

from socketcluster_proto.v1 import store_pb2, store_pb2_grpc
from socketcluster_runtime import rpc
from socketcluster_runtime.addresses import look_up
from socketcluster_runtime.errors import SettingsError
from socketcluster_store_client import client as client_module
from socketcluster_store_client.client import StoreClient
from socketcluster_store_client.errors import (
    InvalidOperationError,
    OperationError,
    PartitionUnavailableError,
    StoreUnavailableError,
)
from socketcluster_store_client.messages import Error, Operation, Result, decode_operations, encode_results
from socketcluster_store_client.partitioning import PARTITION_COUNT, partition_of

SECRET = "a secret of the tests"
GET = store_pb2.VERB_GET
encode = msgspec.msgpack.encode
ALL = range(PARTITION_COUNT)
POSITION = msgspec.msgpack.encode({"epoch": 4, "offset": 2, "first": 3})
"""Where the channels of the scripted store are when somebody subscribes."""


class Stream:
    """One link, as the store has it."""

    def __init__(self, context: Any) -> None:
        self.operations: asyncio.Queue[Operation] = asyncio.Queue()
        self._context = context
        self.end = asyncio.Event()

    async def announce(self, partitions: Any, epoch: int, broken: Iterable[int] = ()) -> None:
        announcement = store_pb2.Announcement(
            store_id="scripted",
            partitions=[store_pb2.Ownership(partition=number, epoch=epoch) for number in partitions],
            broken=[store_pb2.Broken(partition=number, reason="the disk is mud") for number in broken],
        )
        await self._context.write(store_pb2.LinkReply(announcement=announcement))

    async def answer(self, *results: Result) -> None:
        await self._context.write(store_pb2.LinkReply(results=encode_results(list(results))))

    async def tell(self, *events: store_pb2.Event) -> None:
        await self._context.write(store_pb2.LinkReply(events=events))

    async def take(self, count: int) -> list[Operation]:
        return [await self.operations.get() for _ in range(count)]


class ScriptedStore(store_pb2_grpc.StoreServicer):
    """A store that leaves everything to the test."""

    def __init__(self) -> None:
        self.streams: asyncio.Queue[Stream] = asyncio.Queue()

    async def Hello(self, request: Any, context: Any) -> Any:  # noqa: N802
        return store_pb2.HelloReply()

    async def Link(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]  # noqa: N802
        stream = Stream(context)
        assert (await anext(aiter(request_iterator))).open.worker_id == "worker01"
        self.streams.put_nowait(stream)

        async def read() -> None:
            async for request in request_iterator:
                for operation in decode_operations(request.operations):
                    stream.operations.put_nowait(operation)

        reader = asyncio.create_task(read())
        try:
            await stream.end.wait()
        finally:
            reader.cancel()
        await context.abort(grpc.StatusCode.UNAVAILABLE, "the script says so")


@pytest.fixture
async def start_store(folder: Path) -> AsyncIterator[Callable[[], Any]]:
    servers: list[grpc.aio.Server] = []

    async def start() -> tuple[str, ScriptedStore]:
        server, _health = rpc.server(SECRET)
        store = ScriptedStore()
        store_pb2_grpc.add_StoreServicer_to_server(store, server)
        address = f"unix:{folder}/{len(servers)}"
        rpc.listen(server, address)
        await server.start()
        servers.append(server)
        return address, store

    yield start
    for server in servers:
        await server.stop(None)


@pytest.fixture
def folder() -> Any:
    with tempfile.TemporaryDirectory(prefix="sc", dir="/tmp") as path:
        yield Path(path)


@pytest.fixture
async def make_client() -> AsyncIterator[Callable[..., Any]]:
    clients = []

    async def make(*addresses: str, **options: Any) -> StoreClient:
        handlers = {
            name: options.pop(name, lambda *_: None)
            for name in ("on_session_message", "on_session_destroyed", "on_channel_message")
        }
        client = StoreClient(
            addresses, worker_id="worker01", app_name="socketcluster", secret=SECRET, **handlers, **options
        )
        clients.append(client)
        await client.start()
        return client

    yield make
    for client in clients:
        await client.close()


async def test_operations_of_one_turn_wait_for_their_owner_in_order(start_store: Any, make_client: Any) -> None:
    address, store = await start_store()
    client = await make_client(address)
    calls = [client.call(GET, session_id="s", keys=[str(number)]) for number in range(10)]
    stream = await store.streams.get()
    assert not client.ready
    await stream.announce(ALL, 1)
    await client.wait_ready()
    taken = await stream.take(10)
    assert [operation.keys[0] for operation in taken] == [str(number) for number in range(10)]
    assert {operation.partition for operation in taken} == {partition_of("s")}
    await stream.answer(*(Result(id=o.id, value=o.keys[0].encode()) for o in reversed(taken)))
    assert await asyncio.gather(*calls) == [str(number).encode() for number in range(10)]


async def test_what_has_no_answer_is_sent_again_after_what_is_attached(start_store: Any, make_client: Any) -> None:
    address, store = await start_store()
    client = await make_client(address)
    stream = await store.streams.get()
    await stream.announce(ALL, 1)
    await client.wait_ready()
    first = [client.attach("s"), client.subscribe("s"), client.attach("left"), client.detach("left")]
    await stream.answer(*(Result(id=o.id, value=POSITION) for o in await stream.take(4)))
    await asyncio.gather(*first)
    calls = [client.call(GET, session_id="s", keys=[str(number)]) for number in range(3)]
    taken = await stream.take(3)
    await stream.answer(Result(id=taken[0].id, value=b"answered"))
    assert await calls[0] == b"answered"
    stream.end.set()
    stream = await store.streams.get()
    assert not client.ready
    await stream.announce(ALL, 2)
    again = [operation for operation in await stream.take(5) if operation.partition == partition_of("s")]
    assert [operation.verb for operation in again[:2]] == [
        store_pb2.VERB_SESSION_ATTACH,
        store_pb2.VERB_CHANNEL_SUBSCRIBE,
    ]
    assert [(each.id, each.keys, each.epoch, each.behind) for each in again[2:]] == [
        (taken[1].id, ("1",), 2, 0),
        (taken[2].id, ("2",), 2, 1),
    ]
    await stream.answer(Result(id=again[0].id, value=b"\xc3"))
    await stream.answer(*(Result(id=operation.id, value=POSITION) for operation in again[1:]))
    assert await asyncio.gather(*calls[1:]) == [POSITION, POSITION]


async def test_a_partition_that_moves_takes_its_operations_along(start_store: Any, make_client: Any) -> None:
    (one_address, one), (two_address, two) = await start_store(), await start_store()
    heard: asyncio.Queue[str] = asyncio.Queue()
    client = await make_client(one_address, two_address, on_session_destroyed=heard.put_nowait)
    old, new = await one.streams.get(), await two.streams.get()
    await old.announce(ALL, 1)
    await new.announce([], 1)
    await client.wait_ready()
    calls = [client.call(GET, session_id="s", keys=[str(number)]) for number in range(3)]
    taken = await old.take(3)
    await old.answer(Result(id=taken[0].id, value=b"before"))
    assert await calls[0] == b"before"
    await new.announce([partition_of("s")], 2)
    moved = await new.take(2)  # at once: the former owner may hang
    calls.append(client.call(GET, session_id="s", keys=["3"]))
    moved += await new.take(1)
    assert [(operation.keys[0], operation.epoch) for operation in moved] == [("1", 2), ("2", 2), ("3", 2)]
    await old.answer(*(Result(id=operation.id, value=b"too late") for operation in taken[1:]))
    await old.tell(store_pb2.Event(session_destroyed=store_pb2.SessionDestroyed(session_id="barrier")))
    await heard.get()
    await new.answer(*(Result(id=operation.id) for operation in moved))
    assert await asyncio.gather(*calls[1:]) == [b"", b"", b""]


async def test_a_store_that_opens_a_partition_again_gets_what_it_refused_first(
    start_store: Any, make_client: Any
) -> None:
    address, store = await start_store()
    heard: asyncio.Queue[Any] = asyncio.Queue()
    client = await make_client(address, on_session_message=lambda *message: heard.put_nowait(message))
    stream = await store.streams.get()
    await stream.announce(ALL, 1)
    await client.wait_ready()
    calls = [client.call(GET, session_id="s", keys=[str(number)]) for number in range(2)]
    taken = await stream.take(2)
    await stream.announce(set(ALL) - {partition_of("s")}, 1)
    await stream.announce(ALL, 2)
    emit = store_pb2.SessionMessage(session_id="s", name="heard", origin="a", id=1)
    await stream.tell(store_pb2.Event(session_message=emit))
    await heard.get()  # so the client knows what was announced before
    calls.append(client.call(GET, session_id="s", keys=["2"]))
    not_owner = Error(code=store_pb2.Error.CODE_NOT_OWNER)
    await stream.answer(*(Result(id=operation.id, error=not_owner) for operation in taken))
    again = await stream.take(3)
    assert [(operation.keys[0], operation.epoch) for operation in again] == [("0", 2), ("1", 2), ("2", 2)]
    await stream.answer(*(Result(id=operation.id) for operation in again))
    assert await asyncio.gather(*calls) == [b"", b"", b""]


async def test_an_emit_that_comes_again_is_handed_on_once(start_store: Any, make_client: Any) -> None:
    heard: asyncio.Queue[Any] = asyncio.Queue()
    address, store = await start_store()
    await make_client(address, on_session_message=lambda *message: heard.put_nowait(message))
    stream = await store.streams.get()

    def emit(origin: str, number: int) -> store_pb2.Event:
        message = store_pb2.SessionMessage(session_id="s", name=f"{origin}{number}", origin=origin, id=number)
        return store_pb2.Event(session_message=message)

    await stream.tell(emit("a", 3), emit("a", 5), emit("b", 1), emit("a", 3), emit("a", 5), emit("a", 6), emit("a", 4))
    assert [(await heard.get())[1] for _ in range(5)] == ["a3", "a5", "b1", "a6", "a4"]  # a4: a former owner was slow
    assert heard.empty()


async def test_sessions_that_ended_unheard_are_told_of(start_store: Any, make_client: Any) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    address, store = await start_store()
    client = await make_client(address, on_session_destroyed=heard.put_nowait)
    stream = await store.streams.get()
    await stream.announce(ALL, 1)
    await client.wait_ready()
    same = [f"s{number}" for number in range(1000) if partition_of(f"s{number}") == 0][:5]
    here, left, ended, lives, new = same
    for session_id in (here, left, ended, lives):
        attached = client.attach(session_id)
        await stream.answer(Result(id=(await stream.take(1))[0].id, value=encode(False)))
        await attached
    for session_id in (left, ended, lives):
        detached = client.detach(session_id)
        await stream.answer(Result(id=(await stream.take(1))[0].id))
        await detached
    await stream.tell(store_pb2.Event(session_destroyed=store_pb2.SessionDestroyed(session_id=ended)))
    assert await heard.get() == ended
    stream.end.set()
    stream = await store.streams.get()
    attached = client.attach(new)
    await stream.announce(ALL, 2)
    again = await stream.take(4)
    check = next(each for each in again if each.verb == store_pb2.VERB_SESSION_CHECK)
    assert msgspec.msgpack.decode(check.value) == [left, lives]
    attaches = [each for each in again if each.verb == store_pb2.VERB_SESSION_ATTACH]
    assert [each.session_id for each in attaches] == [here, new, new]
    await stream.answer(
        *(Result(id=each.id, value=encode(False)) for each in attaches[:2]),
        Result(id=attaches[2].id, value=encode(True)),
        Result(id=check.id, value=encode([left])),
    )
    assert [await heard.get(), await heard.get()] == [here, left]
    await attached
    await stream.tell(store_pb2.Event(session_destroyed=store_pb2.SessionDestroyed(session_id="barrier")))
    assert await heard.get() == "barrier"


async def test_nobody_answers(start_store: Any, make_client: Any) -> None:
    address, store = await start_store()
    client = await make_client(address, timeout=1)
    parked = client.call(GET, session_id="s", keys=["k"])
    with pytest.raises(StoreUnavailableError, match=r"no store answered GET .* within 1 s"):
        await parked
    stream = await store.streams.get()
    await stream.announce(ALL, 1)
    await client.wait_ready()
    sent = client.call(GET, session_id="s", keys=["late"])
    (operation,) = await stream.take(1)
    with pytest.raises(StoreUnavailableError):
        await sent
    await stream.answer(Result(id=operation.id, value=b"too late"))
    call = client.call(GET, session_id="s", keys=["next"])
    (operation,) = await stream.take(1)
    assert operation.keys == ("next",)
    await stream.answer(Result(id=operation.id, value=b"in time"))
    assert await call == b"in time"


async def test_closing_fails_what_waits(start_store: Any, make_client: Any) -> None:
    address, _store = await start_store()
    client = await make_client(address)
    waiting = client.call(GET, session_id="s", keys=["k"])
    await client.close()
    with pytest.raises(StoreUnavailableError, match="closed"):
        await waiting
    with pytest.raises(StoreUnavailableError, match="closed"):
        await client.call(GET, session_id="s", keys=["k"])


async def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch, start_store: Any, make_client: Any) -> None:
    monkeypatch.setattr(client_module, "MAX_PENDING", 2)
    address, store = await start_store()
    client = await make_client(address)
    calls = [client.call(GET, session_id="s", keys=["k"]) for _ in range(2)]
    with pytest.raises(StoreUnavailableError, match="too many"):
        await client.call(GET, session_id="s", keys=["k"])
    stream = await store.streams.get()
    await stream.announce(ALL, 1)
    await stream.answer(*(Result(id=operation.id) for operation in await stream.take(2)))
    assert await asyncio.gather(*calls) == [b"", b""]


async def test_a_store_that_reads_nothing_does_not_grow_the_worker(
    monkeypatch: pytest.MonkeyPatch, folder: Path, make_client: Any
) -> None:
    monkeypatch.setattr(client_module, "MAX_PENDING_BYTES", 8 << 20)

    class DeafStore(ScriptedStore):
        async def Link(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]  # noqa: N802
            await anext(aiter(request_iterator))
            ownership = [store_pb2.Ownership(partition=number, epoch=1) for number in ALL]
            await context.write(store_pb2.LinkReply(announcement=store_pb2.Announcement(partitions=ownership)))
            await asyncio.get_running_loop().create_future()

    server, _health = rpc.server(SECRET)
    store_pb2_grpc.add_StoreServicer_to_server(DeafStore(), server)
    rpc.listen(server, f"unix:{folder}/deaf")
    await server.start()
    client = await make_client(f"unix:{folder}/deaf", timeout=0.2)
    await client.wait_ready()
    value = encode("x" * 1_000_000)
    calls = [client.call(store_pb2.VERB_SET, session_id="s", keys=["k"], value=value) for _ in range(20)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [str(outcome).partition(": ")[2] for outcome in outcomes[8:]] == [
        "too many operations wait for the stores"
    ] * 12
    assert all("no store answered" in str(outcome) for outcome in outcomes[:8])
    (link,) = client._links
    assert link.waiting == 0  # what timed out is not kept for the store either
    await client.close()
    await server.stop(None)


async def test_what_waits_for_a_partition_that_cannot_be_opened_fails_by_name(
    start_store: Any, make_client: Any
) -> None:
    address, store = await start_store()
    heard: asyncio.Queue[str] = asyncio.Queue()
    client = await make_client(address, on_session_destroyed=heard.put_nowait)
    broken = partition_of("s")
    parked = client.call(GET, session_id="s", keys=["k"])
    stream = await store.streams.get()
    others = set(ALL) - {broken}
    await stream.announce(others - {partition_of("t")}, 1, broken=[broken])
    with pytest.raises(
        PartitionUnavailableError, match=f"partition {broken} is unavailable: the disk is mud"
    ) as failed:
        await parked
    assert (failed.value.partition, failed.value.operation, failed.value.keys) == (broken, "get", ("k",))
    assert not client.ready  # another one has no owner, and may have one soon
    await stream.announce(others, 1, broken=[broken])
    await client.wait_ready()
    with pytest.raises(PartitionUnavailableError):
        await client.call(GET, session_id="s", keys=["k"])
    await stream.announce(others, 1)
    await stream.tell(store_pb2.Event(session_destroyed=store_pb2.SessionDestroyed(session_id="barrier")))
    await heard.get()
    parked = client.call(GET, session_id="s", keys=["later"])
    await stream.announce(ALL, 2)
    (operation,) = await stream.take(1)
    assert operation.keys == ("later",)
    await stream.answer(Result(id=operation.id, value=b"found"))
    assert await parked == b"found"


async def test_a_partition_that_one_store_cannot_open_serves_as_long_as_another_has_it(
    start_store: Any, make_client: Any
) -> None:
    address, store = await start_store()
    broken = partition_of("s")
    others = set(ALL) - {broken}
    other_address, other = await start_store()
    both = await make_client(address, other_address)
    one, two = await store.streams.get(), await other.streams.get()
    call = both.call(GET, session_id="s", keys=["k"])
    await two.announce([broken], 1)  # it could
    await two.take(1)
    await one.announce(others, 1, broken=[broken])
    await both.wait_ready()
    assert not call.done()
    await two.announce([], 1)
    two.end.set()
    with pytest.raises(PartitionUnavailableError):
        await call


async def test_operations_that_cannot_be_are_refused_here(start_store: Any, make_client: Any) -> None:
    address, _store = await start_store()
    client = await make_client(address)
    for arguments in (
        {"session_id": "\ud800", "keys": ["k"]},
        {"session_id": "s", "keys": ["\ud800"]},
        {"session_id": "s", "keys": [1]},
        {"session_id": "s", "keys": [b"k"]},
        {"session_id": "s", "keys": ["k"], "value": "text"},
        {"session_id": "s", "name": "\ud800"},
        {"session_id": "s", "message_id": 5},
        {"session_id": 5},
        {},
        {"partition": PARTITION_COUNT},
        {"partition": -1},
    ):
        with pytest.raises(InvalidOperationError):
            await client.call(GET, **arguments)
    with pytest.raises(InvalidOperationError):
        await client.attach("\ud800")


async def test_events_are_handed_on_and_a_failing_handler_harms_nobody(start_store: Any, make_client: Any) -> None:
    heard: asyncio.Queue[Any] = asyncio.Queue()

    def fail(*_: Any) -> None:
        raise RuntimeError("a handler's bug")

    address, store = await start_store()
    client = await make_client(
        address,
        on_session_message=fail,
        on_session_destroyed=heard.put_nowait,
        on_channel_message=lambda *message: heard.put_nowait(message),
    )
    stream = await store.streams.get()
    await stream.announce(ALL, 1)
    await client.wait_ready()
    subscribed = client.subscribe("c")
    await stream.answer(*(Result(id=operation.id, value=POSITION) for operation in await stream.take(1)))
    assert await subscribed == POSITION
    await stream.tell(
        store_pb2.Event(session_message=store_pb2.SessionMessage(session_id="s", name="e", value=b"\x90", id=1)),
        store_pb2.Event(session_destroyed=store_pb2.SessionDestroyed(session_id="s")),
        store_pb2.Event(channel_message=store_pb2.ChannelMessage(channel="c", value=b"\x01", offset=3, epoch=4)),
    )
    assert await heard.get() == "s"
    assert await heard.get() == ("c", b"\x01", 3, 4)


async def test_a_fault_of_the_store_is_an_error_of_the_operation(start_store: Any, make_client: Any) -> None:
    address, store = await start_store()
    client = await make_client(address)
    stream = await store.streams.get()
    await stream.announce(ALL, 1)
    call = client.call(GET, session_id="s", keys=["k"])
    (operation,) = await stream.take(1)
    error = Error(code=store_pb2.Error.CODE_INTERNAL, message="the disk is full")
    await stream.answer(Result(id=operation.id, error=error))
    with pytest.raises(OperationError, match="the disk is full"):
        await call


async def test_names_stand_for_hosts(make_client: Any) -> None:
    assert {entry[4][0] for entry in await look_up("localhost", 7000)} <= {"127.0.0.1", "::1"}
    with pytest.raises((OSError, UnicodeError)):
        await look_up("x" * 64, 7000)
    for malformed in ("localhost", "localhost:", "dns:///:7000", "localhost:0", "localhost:99999"):
        with pytest.raises(SettingsError, match="no address"):
            await make_client(malformed)


async def test_a_store_that_is_found_by_name(make_client: Any) -> None:
    server, _health = rpc.server(SECRET)
    store = ScriptedStore()
    store_pb2_grpc.add_StoreServicer_to_server(store, server)
    port = rpc.listen(server, "127.0.0.1:0")
    await server.start()
    client = await make_client(f"dns:///localhost:{port}")
    stream = await store.streams.get()
    await stream.announce(ALL, 1)
    await client.wait_ready()
    await client.close()
    await server.stop(None)
