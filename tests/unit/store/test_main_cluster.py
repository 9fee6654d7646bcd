"""Several store processes on one data folder: killed, paused, started and stopped under load."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
from support.store.processes import NAMES, SECRET, History, Stores, opening, owned_by, spread
from support.store.running import LinkWorker, StoreProcesses
from support.store.valkey import valkey_options

from socketcluster_proto.v1 import store_pb2, store_pb2_grpc
from socketcluster_runtime import rpc
from socketcluster_store_client.messages import Operation, Result, decode_results, encode_operations
from socketcluster_store_client.partitioning import PARTITION_COUNT, partition_of

pytestmark = pytest.mark.timeout(240)
"""Seconds: several processes under load, on a machine that may be busy."""

KILLS = 8
SOON_HUNG = {"SOCKETCLUSTER_STORE_HANG_TIMEOUT": "1"}
encode = msgspec.msgpack.encode
decode: Callable[[bytes], Any] = msgspec.msgpack.decode
ADD, POP, GET, SET, PUBLISH = (
    store_pb2.VERB_ADD,
    store_pb2.VERB_POP,
    store_pb2.VERB_GET,
    store_pb2.VERB_SET,
    store_pb2.VERB_CHANNEL_PUBLISH,
)


@pytest.fixture(
    params=[
        "lmdb",
        pytest.param("valkey", marks=pytest.mark.valkey),
    ]
)
def stores(request: pytest.FixtureRequest, processes: StoreProcesses, folder: Path) -> Stores:
    """Stores with each engine that many can share."""
    if request.param == "lmdb":
        return Stores(processes, folder)
    return Stores(processes, folder, **valkey_options(request.getfixturevalue("valkey")))


async def test_stores_that_are_killed_at_random_lose_nothing_and_apply_nothing_twice(
    stores: Stores, link_worker: LinkWorker
) -> None:
    await stores.start(*NAMES)
    worker = await link_worker(*stores.addresses)
    history = History(worker)
    chance = random.Random(7)
    async with history.going_on():
        for _ in range(KILLS if stores.local else 3):
            await history.progress(chance.randrange(1, 8))
            name = chance.choice(NAMES)
            await stores.end(name, signal.SIGKILL)
            if chance.random() < 0.7:
                await history.progress(2)  # with what is left
            await stores.start(name)
        await history.progress(2)
    await history.check(await link_worker(*stores.addresses, worker_id="worker02"))
    await spread(stores, 21, 21, 22)


async def test_stores_that_come_and_go_move_partitions_without_an_error(
    stores: Stores, link_worker: LinkWorker
) -> None:
    await stores.start("one")
    worker = await link_worker(*stores.addresses)
    await worker.client.subscribe("news")
    await worker.client.attach("somebody")
    history = History(worker)
    async with history.going_on():
        await history.progress(2)
        for name in ("two", "three"):
            await stores.start(name)
            await history.progress(2)
        await spread(stores, 21, 21, 22)
        for name in ("one", "three"):
            await stores.end(name, signal.SIGTERM)
            await history.progress(2)
        await spread(stores, PARTITION_COUNT)
    other = await link_worker(*stores.addresses, worker_id="worker02")
    await history.check(other)
    await other.client.call(store_pb2.VERB_CHANNEL_PUBLISH, name="news", value=encode("still heard"))
    assert (await worker.channel_messages.get())[1] == encode("still heard")
    await other.client.call(store_pb2.VERB_SESSION_EMIT, session_id="somebody", name="hello", value=encode([]))
    assert (await worker.session_messages.get())[1] == "hello"


async def test_a_killed_store_s_subscribers_and_holders_go_on_with_the_others(
    processes: StoreProcesses, link_worker: LinkWorker, folder: Path
) -> None:
    stores = Stores(processes, folder)
    await stores.start("one", "two")
    worker = await link_worker(*stores.addresses)
    other = await link_worker(*stores.addresses, worker_id="worker02")
    names = [f"name{number}" for number in range(100)]
    await asyncio.gather(*map(worker.client.subscribe, names), *map(worker.client.attach, names))
    await stores.end("one", signal.SIGKILL)
    await worker.client.wait_ready()
    await asyncio.gather(*(worker.barrier(name) for name in names))
    for verb, value in ((store_pb2.VERB_CHANNEL_PUBLISH, encode(1)), (store_pb2.VERB_SESSION_EMIT, encode([]))):
        sessions = [""] * 100 if verb == store_pb2.VERB_CHANNEL_PUBLISH else names
        calls = zip(sessions, names, strict=True)
        await asyncio.gather(
            *(other.client.call(verb, session_id=session, name=name, value=value) for session, name in calls)
        )
    assert {(await worker.channel_messages.get())[0] for _ in names} == set(names)
    assert {(await worker.session_messages.get())[0] for _ in names} == set(names)


async def test_a_paused_store_that_wakes_can_neither_write_nor_acknowledge(
    stores: Stores, link_worker: LinkWorker
) -> None:
    await stores.start("one", "two", **SOON_HUNG)
    worker = await link_worker(*stores.addresses)
    epochs = await owned_by(stores.address("one"))
    session = next(name for name in (f"s{number}" for number in range(1000)) if partition_of(name) in epochs)
    partition = partition_of(session)
    await worker.set(session, "k", value=encode("before"))
    channel, call = raw_link(stores.address("one"))
    await call.write(opening("late"))
    await call.read()
    stores.running["one"].send_signal(signal.SIGSTOP)
    write = Operation(id=1, verb=SET, session_id=session, keys=("k",), value=encode("late"), partition=partition)
    read = Operation(id=2, verb=GET, session_id=session, keys=("k",), partition=partition)
    await call.write(request(write, read))
    assert await worker.get(session, "k") == encode("before")  # it waited for the takeover
    await worker.set(session, "k", value=encode("after"))
    assert (await owned_by(stores.address("two")))[partition] > epochs[partition]
    stores.running["one"].send_signal(signal.SIGCONT)
    results: list[Result] = []
    while len(results) < 2:
        results.extend(results_of(await call.read()))
    assert [result.error and result.error.code for result in results] == [store_pb2.Error.CODE_NOT_OWNER] * 2
    await spread(stores, 32, 32)  # it is one of them again
    assert await worker.get(session, "k") == encode("after")
    await channel.close()


async def test_stores_that_are_paused_under_load_lose_nothing_and_apply_nothing_twice(
    stores: Stores, link_worker: LinkWorker
) -> None:
    await stores.start("one", "two", **SOON_HUNG)
    worker = await link_worker(*stores.addresses)
    history = History(worker)
    async with history.going_on():
        for name in ("one", "two", "one"):
            await history.progress(3)
            stores.running[name].send_signal(signal.SIGSTOP)
            await history.progress(3)  # all callers: its partitions were taken over
            stores.running[name].send_signal(signal.SIGCONT)
            await spread(stores, 32, 32)
    await history.check(await link_worker(*stores.addresses, worker_id="worker02"))


async def test_what_comes_again_is_answered_as_the_first_time(
    processes: StoreProcesses, link_worker: LinkWorker, folder: Path
) -> None:
    stores = Stores(processes, folder)
    options = {"SOCKETCLUSTER_CHANNEL_HISTORY": "kept*: 10, 60"}
    await stores.start("one", **options)
    worker = await link_worker(stores.address("one"))
    partition = partition_of("s")
    kept, other = (
        next(name for name in (f"{prefix}{number}" for number in range(1000)) if partition_of(name) == partition)
        for prefix in ("kept", "other")
    )
    await worker.client.subscribe(kept)
    await worker.client.subscribe(other)
    wrong = Operation(id=5, verb=SET, session_id="s", partition=partition)
    misplaced = Operation(id=6, verb=SET, session_id="t", keys=("k",), value=encode(1), partition=partition)
    publications = [
        Operation(id=number, verb=PUBLISH, name=name, value=encode(number), partition=partition)
        for number, name in ((7, kept), (8, other), (9, kept))
    ]
    sent = [
        *(operation(number, ADD, number) for number in (1, 2, 3)),
        operation(4, POP),
        wrong,
        misplaced,
        *publications,
    ]
    for each in sent:
        each.behind = each.id - 1  # no answer has arrived
    first = await answers(stores.address("one"), sent)
    assert decode(first[3].value) == 3
    assert [result.error and result.error.code for result in first[4:6]] == [store_pb2.Error.CODE_INVALID] * 2
    assert [decode(result.value)["offset"] for result in first[6:]] == [1, 1, 2]
    assert await answers(stores.address("one"), sent) == first  # on another link
    await stores.end("one", signal.SIGKILL)
    await stores.start("one", **options)
    again = await answers(stores.address("one"), sent)  # by another owner
    assert decode(again.pop(7).value) == {"offset": 0, "epoch": 0}  # it has no history to tell
    assert again == [*first[:7], first[8]]
    assert decode(await worker.get("s", "list")) == [1, 2]
    assert [(await worker.channel_messages.get())[1] for _ in range(3)] == [encode(7), encode(8), encode(9)]
    await worker.barrier("s")
    assert worker.channel_messages.empty()


async def test_results_that_are_too_large_to_keep_are_lost_by_name(processes: StoreProcesses, folder: Path) -> None:
    stores = Stores(processes, folder)
    await stores.start(
        "one", SOCKETCLUSTER_MAX_VALUE_BYTES=str(12 << 20), SOCKETCLUSTER_MAX_SESSION_BYTES=str(64 << 20)
    )
    large = "x" * (9 << 20)
    sessions = [name for name in (f"s{number}" for number in range(1000)) if partition_of(name) == 0][:2]
    for number, session in enumerate(sessions, 1):
        await answers(stores.address("one"), [operation(number, ADD, large, session=session)])
    popped = [operation(number, POP, session=session, behind=number - 3) for number, session in enumerate(sessions, 3)]
    first = [*await answers(stores.address("one"), popped[:1]), *await answers(stores.address("one"), popped[1:])]
    assert [decode(each.value) for each in first] == [large, large]
    again = await answers(stores.address("one"), popped)
    assert [each.error and each.error.code for each in again] == [store_pb2.Error.CODE_RESULT_LOST, None]
    assert again[1] == first[1]


async def test_sessions_that_end_while_a_worker_is_away_are_heard_of(
    processes: StoreProcesses, link_worker: LinkWorker, folder: Path
) -> None:
    stores = Stores(processes, folder)
    await stores.start("one", SOCKETCLUSTER_SESSION_TIMEOUT="0.05", SOCKETCLUSTER_LINK_GRACE="0")
    witness = await link_worker(stores.address("one"), worker_id="witness")
    await stores.start("two", SOCKETCLUSTER_SESSION_TIMEOUT="0.05", SOCKETCLUSTER_LINK_GRACE="0")
    worker = await link_worker(*stores.addresses)
    epochs = await owned_by(stores.address("one"))
    session = next(name for name in (f"s{number}" for number in range(1000)) if partition_of(name) in epochs)
    await worker.client.attach(session)
    link = next(link for link in worker.client._links if link.address == stores.address("one"))
    await link.close()  # as a broken network does
    worker.client.on_broken(link)
    assert await witness.destroyed.get() == session
    link.start()
    assert await worker.destroyed.get() == session


async def test_a_worker_that_reads_no_answers_is_given_no_more(
    processes: StoreProcesses, link_worker: LinkWorker, folder: Path
) -> None:
    stores = Stores(processes, folder)
    await stores.start("one", SOCKETCLUSTER_MAX_LINK_BYTES=str(8 << 20))
    worker = await link_worker(stores.address("one"))
    await worker.set("s", "k", value=encode("x" * 500_000))
    channel, call = raw_link(stores.address("one"))
    await call.write(opening("slow"))
    await call.read()
    count = 200
    reads = [
        Operation(id=number, verb=GET, session_id="s", keys=("k",), partition=partition_of("s"))
        for number in range(1, count + 1)
    ]
    writing = asyncio.create_task(write_each(call, reads))  # far more than may wait for a worker
    await asyncio.gather(*(worker.barrier("s") for _ in range(50)))
    seen = 0
    while seen < count:
        for result in results_of(await call.read()):
            seen += 1
            assert result.id == seen
    await writing
    await channel.close()


def operation(
    number: int, verb: store_pb2.Verb.ValueType, value: Any = None, *, session: str = "s", behind: int = 0
) -> Operation:
    return Operation(
        id=number,
        verb=verb,
        session_id=session,
        keys=("list",),
        value=b"" if value is None else encode(value),
        partition=partition_of(session),
        behind=behind,
    )


def results_of(response: store_pb2.LinkReply) -> list[Result]:
    """Return the results of a message, which may have none: announcements travel alone."""
    return decode_results(response.results) if response.results else []


def raw_link(address: str) -> tuple[grpc.aio.Channel, Any]:
    channel = rpc.connect(address)
    stub: Any = store_pb2_grpc.StoreStub(channel)
    return channel, stub.Link(metadata=rpc.credentials(SECRET), wait_for_ready=True)


async def write_each(call: Any, operations: Sequence[Operation]) -> None:
    for each in operations:
        await call.write(request(each))


async def answers(address: str, operations: Sequence[Operation]) -> list[Result]:
    """Send operations on a new link of the same process of a worker; return the results by id."""
    channel, call = raw_link(address)
    await call.write(opening("again"))
    await call.read()
    await call.write(request(*operations))
    results: list[Result] = []
    while len(results) < len(operations):
        results.extend(results_of(await call.read()))
    await channel.close()
    return sorted(results, key=lambda result: result.id)


def request(*operations: Operation) -> store_pb2.LinkRequest:
    return store_pb2.LinkRequest(operations=encode_operations(operations))
