"""What the engine valkey alone promises: fencing, calls that come late or twice, servers that fail, and membership."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from secrets import token_hex
from typing import Any

import msgspec
import pytest
from pydantic import SecretStr
from redis.crc import key_slot
from support.network import certificates
from support.network.ports import free_port
from support.store.valkey import Cluster, Server, valkey_engine

from socketcluster_proto.v1 import store_pb2
from socketcluster_runtime.errors import SettingsError
from socketcluster_store.commands import Command
from socketcluster_store.engine import EnginePartition
from socketcluster_store.engines.valkey import scripts
from socketcluster_store.engines.valkey.engine import ValkeyEngine
from socketcluster_store.engines.valkey.password import PasswordFile
from socketcluster_store.engines.valkey.servers import Servers
from socketcluster_store.errors import EngineError, FencedError, PartitionLockedError, UnreachableError
from socketcluster_store.executor import ExecutorOptions
from socketcluster_store.settings import StoreSettings

pytestmark = pytest.mark.valkey

encode = msgspec.msgpack.encode
decode: Callable[[Any], Any] = msgspec.msgpack.decode
NUMBER = 7


class Stores:
    """Engines of stores that share an application."""

    def __init__(self, stack: AsyncExitStack, servers: Server | Cluster) -> None:
        self._stack = stack
        self._servers = servers
        self.app_name = token_hex(8)
        self.key = scripts.partition_key(self.app_name, NUMBER)

    async def add(self, store_id: str, *, timeout: float = 30) -> ValkeyEngine:
        context = valkey_engine(
            self._servers, ExecutorOptions(1 << 20), app_name=self.app_name, store_id=store_id, timeout=timeout
        )
        return await self._stack.enter_async_context(context)


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as made:
        yield made


@pytest.fixture
def stores(stack: AsyncExitStack, valkey: Server) -> Stores:
    return Stores(stack, valkey)


async def put(partition: EnginePartition, key: str, value: Any) -> None:
    assert await partition.apply([Command(store_pb2.VERB_SET, b"s", [key], encode(value))]) == [b""]


async def get(partition: EnginePartition, key: str) -> Any:
    (outcome,) = await partition.apply([Command(store_pb2.VERB_GET, b"s", [key])])
    assert isinstance(outcome, bytes)
    return decode(outcome)


async def test_a_partition_is_found_again_with_a_higher_epoch(stores: Stores) -> None:
    first = await (await stores.add("one-1")).open(NUMBER)
    await put(first, "a", 1)
    await first.close()
    second = await (await stores.add("two-2")).open(NUMBER)
    assert second.epoch > first.epoch
    assert await get(second, "a") == 1
    await second.close()


async def test_a_partition_has_one_owner(stores: Stores) -> None:
    partition = await (await stores.add("one-1")).open(NUMBER)
    other = await stores.add("two-2")
    with pytest.raises(PartitionLockedError, match="07") as locked:
        await other.open(NUMBER)
    assert locked.value.holder == "one-1"
    with pytest.raises(PartitionLockedError):
        await other.take(NUMBER, "three-3")
    await put(partition, "a", 1)
    await partition.close()
    await (await other.open(NUMBER)).close()


async def test_who_was_fenced_can_neither_write_nor_read_nor_release(stores: Stores) -> None:
    one = await stores.add("one-1")
    writer, reader = await one.open(NUMBER), await one.open(NUMBER + 1)
    await put(writer, "a", "before")
    two = await stores.add("two-2")
    taken = [await two.take(number, "one-1") for number in (NUMBER, NUMBER + 1)]
    with pytest.raises(FencedError, match="two-2"):
        await put(writer, "a", "late")
    with pytest.raises(FencedError):
        await get(reader, "a")
    assert writer.fenced
    assert reader.fenced
    await writer.close()
    await reader.close()
    assert await get(taken[0], "a") == "before"
    with pytest.raises(PartitionLockedError):
        await one.open(NUMBER)
    for partition in taken:
        await partition.close()


async def test_a_store_that_opens_its_own_partition_again_fences_itself(stores: Stores) -> None:
    """As after a call to open it that was thought lost."""
    one = await stores.add("one-1")
    first = await one.open(NUMBER)
    second = await one.open(NUMBER)
    with pytest.raises(FencedError):
        await put(first, "a", 1)
    await put(second, "a", 2)
    await second.close()


async def test_a_batch_that_comes_late_or_twice_changes_nothing(stores: Stores, valkey: Server) -> None:
    partition = await (await stores.add("one-1")).open(NUMBER)
    await put(partition, "a", 1)
    await put(partition, "a", 2)
    before = valkey.ask("HGETALL", stores.key)
    for number, reply in ((1, [b"LOST", b"2"]), (2, [b"DONE"])):
        late = ("one-1", partition.epoch, number, 2, "a", "late")
        assert valkey.ask("EVAL", scripts.APPLY.text, 1, stores.key, *late) == reply
        assert valkey.ask("HGETALL", stores.key) == before
    await partition.close()


async def test_what_the_server_lost_is_noticed_by_the_next_batch(stores: Stores, valkey: Server) -> None:
    """As a replica has less that takes over."""
    engine = await stores.add("one-1")
    partition = await engine.open(NUMBER)
    await put(partition, "a", 1)
    valkey.ask("HSET", stores.key, b"\0b", 0)
    with pytest.raises(FencedError, match="0 of 1"):
        await get(partition, "a")
    await partition.close()
    again = await engine.open(NUMBER)
    valkey.ask("DEL", stores.key)
    with pytest.raises(FencedError, match="lost all of it"):
        await put(again, "a", 2)
    await again.close()
    empty = await engine.open(NUMBER)
    assert empty.epoch > again.epoch  # although nothing remembers that
    assert await get(empty, "a") is None
    await empty.close()


async def test_large_batches_are_whole(stores: Stores) -> None:
    engine = await stores.add("one-1")
    partition = await engine.open(NUMBER)
    many = [Command(store_pb2.VERB_SET, b"s", [f"k{number}"], encode("x" * 50)) for number in range(5000)]
    await partition.apply(many)
    await partition.close()
    again = await engine.open(NUMBER)
    (count,) = await again.apply([Command(store_pb2.VERB_COUNT, b"s", [])])
    assert count == encode(5000)
    await again.apply([Command(store_pb2.VERB_REMOVE_ALL, b"s", [])])
    await again.close()
    again = await engine.open(NUMBER)
    assert await again.apply([Command(store_pb2.VERB_GET_ALL, b"s", [])]) == [encode({})]
    await again.close()


async def test_what_the_server_refuses_is_not_seen(own: Server, stack: AsyncExitStack) -> None:
    partition = await (await Stores(stack, own).add("one-1")).open(NUMBER)
    await put(partition, "a", 1)
    own.ask("CONFIG", "SET", "maxmemory", 1)
    with pytest.raises(EngineError, match="maxmemory"):
        await put(partition, "a", 2)
    assert await get(partition, "a") == 1
    own.ask("CONFIG", "SET", "maxmemory", 0)
    await put(partition, "a", 3)
    assert await get(partition, "a") == 3
    await partition.close()


async def test_batches_wait_for_a_server_that_starts_again(own: Server, stack: AsyncExitStack) -> None:
    partition = await (await Stores(stack, own).add("one-1", timeout=40)).open(NUMBER)
    await put(partition, "n", 0)
    own.end()
    calls = [asyncio.create_task(put(partition, "n", number)) for number in range(1, 100)]
    await asyncio.to_thread(own.start)
    await asyncio.gather(*calls)
    assert await get(partition, "n") == 99
    await partition.close()


async def test_a_refusal_after_an_attempt_that_may_have_been_run_costs_the_partition(
    own: Server, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await Stores(stack, own).add("one-1", timeout=40)
    partition = await engine.open(NUMBER)
    own.end()
    tried = asyncio.Event()
    monkeypatch.setattr(Servers, "forget_slots", lambda _servers: tried.set())  # called after each attempt that failed
    call = asyncio.create_task(put(partition, "a", 1))
    await tried.wait()
    own.options += ("--maxmemory", "1")
    await asyncio.to_thread(own.start)
    with pytest.raises(FencedError, match="not known"):
        await call
    own.ask("CONFIG", "SET", "maxmemory", 0)
    await partition.close()
    again = await engine.open(NUMBER)
    await put(again, "a", 2)
    await again.close()


async def test_a_server_that_is_away_for_too_long_costs_the_partition(own: Server, stack: AsyncExitStack) -> None:
    engine = await Stores(stack, own).add("one-1", timeout=1)
    partition = await engine.open(NUMBER)
    await put(partition, "a", "before")
    own.send(signal.SIGSTOP)
    with pytest.raises(FencedError, match="did not answer"):
        await put(partition, "a", "perhaps")
    with pytest.raises(FencedError):
        await get(partition, "a")
    await partition.close()
    with pytest.raises(UnreachableError, match=r"valkey://127\.0\.0\.1:[0-9]+ did not answer for 1 s"):
        await engine.open(NUMBER)
    own.send(signal.SIGCONT)
    while True:  # an opening that was given up may come to the server after a later one, and take it over
        try:
            again = await engine.open(NUMBER)
            assert await get(again, "a") in ("before", "perhaps")
            break
        except EngineError:
            await asyncio.sleep(0.05)
    await again.close()


async def test_a_key_that_moves_in_a_cluster_is_followed(valkey_cluster: Cluster, stack: AsyncExitStack) -> None:
    stores = Stores(stack, valkey_cluster)
    engine = await stores.add("one-1")
    partition = await engine.open(NUMBER)
    slot = key_slot(stores.key)
    stop = asyncio.Event()
    applied = 0

    async def write() -> None:
        nonlocal applied
        while not stop.is_set():
            await put(partition, "n", applied + 1)
            applied += 1
            assert await get(partition, "n") == applied

    writing = asyncio.create_task(write())
    names = [server.ask("CLUSTER", "MYID") for server in valkey_cluster.primaries]
    owner = next(
        i for i, server in enumerate(valkey_cluster.primaries) if server.ask("CLUSTER", "COUNTKEYSINSLOT", slot)
    )
    for _ in range(3):
        source, target = valkey_cluster.primaries[owner], valkey_cluster.primaries[(owner + 1) % 3]
        steps = (
            (target, ("CLUSTER", "SETSLOT", slot, "IMPORTING", names[owner])),
            (source, ("CLUSTER", "SETSLOT", slot, "MIGRATING", names[(owner + 1) % 3])),
            (source, ("MIGRATE", "127.0.0.1", target.port, stores.key, 0, 5000)),
            (target, ("CLUSTER", "SETSLOT", slot, "NODE", names[(owner + 1) % 3])),
            (source, ("CLUSTER", "SETSLOT", slot, "NODE", names[(owner + 1) % 3])),
        )
        for server, step in steps:
            before = applied
            await asyncio.to_thread(server.ask, *step)
            while applied < before + 5:
                await get(partition, "n")
        owner = (owner + 1) % 3
    stop.set()
    await writing
    await partition.close()
    again = await engine.open(NUMBER)
    assert await get(again, "n") == applied
    await again.close()


# Being told what is wrong


async def test_a_server_that_is_not_there_is_named(stack: AsyncExitStack) -> None:
    port = free_port()
    servers = Servers(f"valkey://me:hidden@127.0.0.1:{port}", 1)
    with pytest.raises(
        UnreachableError, match=rf"no Valkey or Redis answers at valkey://127\.0\.0\.1:{port}: .*"
    ) as seen:
        await servers.connect()
    assert "hidden" not in str(seen.value)
    await servers.close()


async def test_a_password_that_is_wrong_is_named(own: Server) -> None:
    own.ask("CONFIG", "SET", "requirepass", "right")
    servers = Servers(own.url.replace("://", "://:wrong@"), 30)
    with pytest.raises(EngineError, match=r"refuses: .*password") as seen:
        await servers.connect()
    assert ":wrong@" not in str(seen.value)
    await servers.close()


async def test_the_password_may_be_in_a_file(own: Server, tmp_path: Path) -> None:
    own.ask("CONFIG", "SET", "requirepass", "right")
    (tmp_path / "password").write_text("right\n")
    servers = Servers(f"{own.url}?password_file={tmp_path}/password", 30)
    await servers.connect()
    await servers.close()


async def test_another_password_in_the_file_counts_for_the_next_connection(own: Server, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("first")
    own.ask("CONFIG", "SET", "requirepass", "second")
    servers = Servers(f"{own.url}?password_file={file}", 30)
    with pytest.raises(EngineError, match="password"):
        await servers.connect()
    file.write_text("second\n")
    await servers.connect()
    await servers.close()


def test_a_password_s_file_that_goes_leaves_the_password_that_was_read(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("first")
    password = PasswordFile(file, "me")
    file.unlink()
    assert password.get_credentials() == ("me", "first")
    file.write_text("second")
    assert password.get_credentials() == ("me", "second")


def test_a_password_s_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"the password_file of valkey_url: .*/password cannot be read"):
        Servers(f"valkey://host?password_file={tmp_path}/password", 5)
    (tmp_path / "password").touch()
    with pytest.raises(EngineError, match=r"the password_file of valkey_url: .*/password is empty"):
        Servers(f"valkey://host?password_file={tmp_path}/password", 5)
    (tmp_path / "password").write_text("right")
    with pytest.raises(EngineError, match=r"a password and a password_file: give one of them"):
        Servers(f"valkey://:right@host?password_file={tmp_path}/password", 5)


async def test_tls(stack: AsyncExitStack, tmp_path: Path) -> None:
    files = certificates.make(tmp_path, "valkey")
    port = free_port()
    tls = ("--tls-port", str(port), "--tls-cert-file", str(files.cert), "--tls-key-file", str(files.key))
    server = Server(tmp_path / "valkey", *tls, "--tls-ca-cert-file", str(files.cert), "--tls-auth-clients", "no")
    stack.callback(server.end)
    server.start()
    for options, refused in (("", True), (f"?ssl_ca_certs={files.cert}", False)):
        servers = Servers(f"valkeys://127.0.0.1:{port}{options}", 30)
        with pytest.raises(UnreachableError, match="certificate") if refused else contextlib.nullcontext():
            await servers.connect()
        if not refused:
            engine = ValkeyEngine(servers, ExecutorOptions(1 << 20), app_name="tls", store_id="one-1")
            partition = await engine.open(NUMBER)
            await put(partition, "a", 1)
            await partition.close()
            assert server.ask("HLEN", scripts.partition_key("tls", NUMBER))
        await servers.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [(None, "the engine valkey needs it"), ("http://me:hidden@host", "it is no URL like valkey://")],
)
def test_settings_without_a_url_say_so(monkeypatch: pytest.MonkeyPatch, url: str | None, said: str) -> None:
    monkeypatch.setenv("SOCKETCLUSTER_ENGINE", "valkey")
    if url:
        monkeypatch.setenv("SOCKETCLUSTER_VALKEY_URL", url)
    with pytest.raises(SettingsError, match=f"SOCKETCLUSTER_VALKEY_URL: .*{said}") as seen:
        StoreSettings.load()
    assert "hidden" not in str(seen.value)


def test_the_password_is_not_shown() -> None:
    settings = StoreSettings(
        engine="valkey", valkey_url=SecretStr("valkeys://me:hidden@host:6379/2?ssl_cert_reqs=none")
    )
    assert "hidden" not in repr(settings)
    assert Servers("valkeys://me:hidden@one:1,two:2/0", 1).shown == "valkeys://one:1,two:2"


# Membership


class Member:
    """A store's membership, and what it knows."""

    def __init__(self, engine: ValkeyEngine, hang_timeout: float) -> None:
        self.changed = asyncio.Event()
        self.engine = engine
        self.membership = engine.membership(hang_timeout, self.changed.set)

    @classmethod
    async def joined(cls, stores: Stores, store_id: str, hang_timeout: float = 3600) -> Member:
        member = cls(await stores.add(store_id), hang_timeout)
        await member.membership.join()
        return member

    async def until(self, *live: str) -> None:
        while self.membership.live != frozenset(live):
            await self.changed.wait()
            self.changed.clear()


async def test_members_find_each_other_and_hear_of_their_ends(stores: Stores) -> None:
    one = await Member.joined(stores, "one-1")
    await one.until("one-1")
    two = await Member.joined(stores, "two-2")
    await two.until("one-1", "two-2")
    await one.until("one-1", "two-2")  # without looking
    await two.membership.leave()
    await one.until("one-1")
    await one.membership.leave()


async def test_members_tell_each_other_whom_workers_reach_and_who_stands_aside(stores: Stores, valkey: Server) -> None:
    one, two = await Member.joined(stores, "one-1"), await Member.joined(stores, "two-2")
    members = one.membership, two.membership
    one.membership.is_linked = two.membership.is_aside = True
    for each in (*members, *members):
        await each.look()
    assert [each.linked for each in members] == [frozenset(), frozenset({"one-1"})]
    assert [each.aside for each in members] == [frozenset({"two-2"})] * 2
    assert [each.sharing for each in members] == [frozenset({"one-1"})] * 2
    valkey.ask("DEL", scripts.stores_key(stores.app_name))  # it is said again
    for each in (*members, *members, *members):
        await each.look()
    assert [each.sharing for each in members] == [frozenset({"one-1"})] * 2
    two.membership.is_aside = False
    for each in (*members, *members):
        await each.look()
    assert [each.sharing for each in members] == [frozenset({"one-1", "two-2"})] * 2
    for each in members:
        await each.leave()
    left = str(valkey.ask("HKEYS", scripts.stores_key(stores.app_name)))
    assert "one-1" not in left
    assert "two-2" not in left


async def test_a_partition_that_a_store_does_not_know_of_is_freed(stores: Stores, valkey: Server) -> None:
    """As after a call to open it that arrives when its store waits no longer."""
    one, two = await Member.joined(stores, "one-1"), await Member.joined(stores, "two-2")
    await two.until("one-1", "two-2")
    assert valkey.ask("EVAL", scripts.OPEN.text, 1, stores.key, "one-1", "")
    while True:
        try:
            partition = await two.engine.open(NUMBER)
            break
        except PartitionLockedError:
            await asyncio.sleep(0.05)
    await partition.close()
    await one.membership.leave()


async def test_a_killed_store_is_missed_sooner_than_one_that_hangs(stores: Stores) -> None:
    one, two = await Member.joined(stores, "one-1"), await Member.joined(stores, "two-2")
    await two.until("one-1", "two-2")
    await one.engine.disconnect()  # as the kernel does
    while "one-1" not in two.membership.hung:  # although the time to hang is an hour
        await two.membership.look()
        await asyncio.sleep(0.05)
    assert two.membership.live == {"two-2"}
    await two.membership.leave()


async def test_a_silent_store_hangs_and_learns_what_it_lost(stores: Stores) -> None:
    one = await Member.joined(stores, "one-1", 1)
    two = await Member.joined(stores, "two-2", 1)
    partition = await one.engine.open(NUMBER)
    while "one-1" not in two.membership.hung:
        await two.membership.look()
        await asyncio.sleep(0.05)
    taken = await two.engine.take(NUMBER, "one-1")
    while not partition.fenced:  # nothing is asked of it
        await one.membership.look()
        await asyncio.sleep(0.05)
    await two.membership.look()
    assert two.membership.live == {"one-1", "two-2"}
    await taken.close()
    await partition.close()
    for member in (one, two):
        await member.membership.leave()
