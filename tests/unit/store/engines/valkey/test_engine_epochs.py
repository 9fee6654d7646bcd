"""Epochs of channels with the engine valkey: what was lost decides, whichever machine the next owner is on."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
from support.store.channels import Bench
from support.store.valkey import Server, until_replicated, valkey_engine

from socketcluster_store.engine import EnginePartition
from socketcluster_store.engines.valkey import scripts
from socketcluster_store.engines.valkey.engine import ValkeyEngine
from socketcluster_store.errors import FencedError
from socketcluster_store.executor import ExecutorOptions
from socketcluster_store.partition import channels as channels_module

pytestmark = pytest.mark.valkey

NUMBER = 7


class Machines:
    """Stores of one application, each on a machine of its own."""

    def __init__(self, stack: AsyncExitStack, boot: Path) -> None:
        self._stack = stack
        self._boot = boot
        self.app_name = token_hex(8)
        self.key = scripts.partition_key(self.app_name, NUMBER)

    async def store(self, store_id: str, server: Server, replicas: int = 0) -> ValkeyEngine:
        options = ExecutorOptions(1 << 20)
        engine = valkey_engine(server, options, app_name=self.app_name, store_id=store_id, replicas=replicas)
        return await self._stack.enter_async_context(engine)

    async def load(self, partition: EnginePartition) -> Bench:
        """Have the channels of an open partition, on the machine of another store than before."""
        self._boot.write_text(token_hex(8))
        bench = Bench(partition)
        await bench.channels.load()
        return bench

    async def open(self, store_id: str, server: Server) -> Bench:
        return await self.load(await (await self.store(store_id, server)).open(NUMBER))

    async def take(self, store_id: str, server: Server, holder: str) -> Bench:
        return await self.load(await (await self.store(store_id, server)).take(NUMBER, holder))


@pytest.fixture
async def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Machines]:
    monkeypatch.setattr(channels_module, "BOOT_ID", tmp_path / "boot_id")
    async with AsyncExitStack() as stack:
        yield Machines(stack, tmp_path / "boot_id")


@pytest.fixture
def servers(tmp_path: Path) -> Any:
    """Starts servers."""
    started: list[Server] = []

    def start(*options: str) -> Server:
        server = Server(tmp_path / f"valkey{len(started)}", *options)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.end()


@pytest.fixture
def pair(servers: Callable[..., Server]) -> tuple[Server, Server]:
    """A primary and its replica."""
    primary = servers("--repl-diskless-sync-delay", "0")
    replica = servers("--replicaof", f"127.0.0.1 {primary.port}")
    until_replicated(primary, replica)
    return primary, replica


async def close(bench: Bench) -> None:
    await bench.channels.close()
    await bench.engine.close()


async def test_a_takeover_by_another_machine_keeps_the_epochs(machines: Machines, valkey: Server) -> None:
    first = await (await machines.open("one-1", valkey)).publish("kept", "a")
    taken = await machines.take("two-2", valkey, "one-1")
    assert await taken.publish("kept", "b") == {"offset": 2, "epoch": first["epoch"]}
    await close(taken)
    given = await machines.open("three-3", valkey)
    assert await given.publish("kept", "c") == {"offset": 3, "epoch": first["epoch"]}
    await close(given)


@pytest.mark.parametrize("next_owner", ["one-1", "two-2"])
async def test_an_offset_that_the_server_lost_is_not_given_again_in_its_epoch(
    machines: Machines, valkey: Server, next_owner: str
) -> None:
    one = await machines.store("one-1", valkey)
    bench = await machines.load(await one.open(NUMBER))
    await bench.publish("kept", "a")
    older = valkey.ask("DUMP", machines.key)
    told = await bench.publish("kept", "acknowledged, lost")
    valkey.ask("RESTORE", machines.key, 0, older, "REPLACE")
    with pytest.raises(FencedError, match="lost batches"):
        await bench.publish("kept", "refused")
    other = one if next_owner == "one-1" else await machines.store(next_owner, valkey)
    after = await machines.load(await other.take(NUMBER, "one-1"))
    again = await after.publish("kept", "another")
    assert again["offset"] == told["offset"]
    assert again["epoch"] > told["epoch"]
    await close(after)


@pytest.mark.parametrize("noticed", ["reading", "reading for replicas", "closing"])
async def test_whatever_notices_that_the_server_lost_an_offset_notes_it(
    machines: Machines, pair: tuple[Server, Server], noticed: str
) -> None:
    primary, replica = pair
    store = await machines.store("one-1", primary, replicas=int(noticed == "reading for replicas"))
    bench = await machines.load(await store.open(NUMBER))
    await bench.publish("kept", "a")
    older = primary.ask("DUMP", machines.key)
    told = await bench.publish("kept", "acknowledged, lost")
    primary.ask("RESTORE", machines.key, 0, older, "REPLACE")
    await asyncio.to_thread(until_replicated, primary, replica)
    if noticed != "closing":
        with pytest.raises(FencedError, match="lost batches"):
            await bench.history("kept")
    await close(bench)
    after = await machines.take("two-2", primary, "one-1")
    again = await after.publish("kept", "another")
    assert again["offset"] == told["offset"]
    assert again["epoch"] > told["epoch"]
    await close(after)


async def test_a_replica_that_took_over_may_have_less_than_a_store_that_is_gone_knew_of(
    machines: Machines, pair: tuple[Server, Server]
) -> None:
    primary, replica = pair
    bench = await machines.open("one-1", primary)
    first = await bench.publish("kept", "a")
    until_replicated(primary, replica)
    replica.ask("REPLICAOF", "NO", "ONE")
    told = await bench.publish("kept", "acknowledged, lost")
    assert told == {"offset": 2, "epoch": first["epoch"]}
    after = await machines.take("two-2", replica, "one-1")
    again = await after.publish("kept", "another")
    assert again["offset"] == 2
    assert again["epoch"] > told["epoch"]
    await close(after)


async def test_a_primary_that_was_a_replica_meanwhile_may_have_less(
    machines: Machines, pair: tuple[Server, Server]
) -> None:
    """Its process is the same, what it has is what the other one had."""
    primary, replica = pair
    bench = await machines.open("one-1", primary)
    await bench.publish("kept", "a")
    until_replicated(primary, replica)
    replica.ask("REPLICAOF", "NO", "ONE")
    told = await bench.publish("kept", "acknowledged, lost")
    primary.ask("REPLICAOF", "127.0.0.1", replica.port)
    await asyncio.to_thread(until_replicated, replica, primary)
    primary.ask("REPLICAOF", "NO", "ONE")
    after = await machines.take("two-2", primary, "one-1")
    again = await after.publish("kept", "another")
    assert again["offset"] == told["offset"]
    assert again["epoch"] > told["epoch"]
    await close(after)


async def test_epochs_end_with_the_server_unless_a_store_lives_that_knows_what_it_had(
    machines: Machines, servers: Callable[..., Server]
) -> None:
    server = servers("--appendfsync", "always")
    bench = await machines.open("one-1", server)
    first = await bench.publish("kept", "a")
    server.end(signal.SIGKILL)
    server.start()
    assert await bench.publish("kept", "b") == {"offset": 2, "epoch": first["epoch"]}
    while bench.engine.unsure:  # type: ignore[attr-defined]  # noqa: ASYNC110  # nothing tells
        await asyncio.sleep(0.01)
    taken = await machines.take("two-2", server, "one-1")  # the store that knew is killed
    assert await taken.publish("kept", "c") == {"offset": 3, "epoch": first["epoch"]}
    server.end(signal.SIGKILL)  # both are
    server.start()
    after = await machines.take("three-3", server, "two-2")
    found = await after.publish("kept", "d")
    assert found["offset"] == 4
    assert found["epoch"] > first["epoch"]
    await close(after)


async def test_a_store_that_waits_for_nothing_notes_that_a_server_has_everything(
    machines: Machines, servers: Callable[..., Server]
) -> None:
    server = servers("--appendfsync", "always")
    engine = await machines.store("one-1", server)
    idle = await machines.load(await engine.open(NUMBER))
    first = await idle.publish("kept", "a")
    idle.channels._expiry.stop()  # it would ask the server, too
    other = await engine.open(NUMBER + 1)
    server.end(signal.SIGKILL)
    server.start()
    await other.apply([])
    while idle.engine.unsure:  # type: ignore[attr-defined]  # noqa: ASYNC110  # nothing tells
        await asyncio.sleep(0.01)
    taken = await machines.take("two-2", server, "one-1")
    assert await taken.publish("kept", "b") == {"offset": 2, "epoch": first["epoch"]}
    await close(taken)
    await other.close()


async def test_who_gives_a_partition_up_notes_that_a_server_has_everything(
    machines: Machines, servers: Callable[..., Server]
) -> None:
    server = servers("--appendfsync", "always")
    bench = await machines.open("one-1", server)
    first = await bench.publish("kept", "a")
    server.end(signal.SIGKILL)
    server.start()
    await close(bench)  # its first call since
    given = await machines.open("two-2", server)
    assert await given.publish("kept", "b") == {"offset": 2, "epoch": first["epoch"]}
    await close(given)


async def test_a_server_that_does_not_say_who_it_is_costs_epochs_and_nothing_else(
    machines: Machines, servers: Callable[..., Server]
) -> None:
    server = servers()
    stores = [await machines.store(f"store-{number}", server) for number in range(3)]
    server.ask("ACL", "SETUSER", "default", "-info")
    epochs = []
    for number, store in enumerate(stores, 1):
        bench = await machines.load(await store.open(NUMBER))
        published = await bench.publish("kept", number)
        assert published["offset"] == number
        epochs.append(published["epoch"])
        await close(bench)
    assert epochs == sorted(set(epochs))


async def test_a_call_that_comes_late_is_no_loss(machines: Machines, valkey: Server) -> None:
    bench = await machines.open("one-1", valkey)
    first = await bench.publish("kept", "a")
    await bench.publish("kept", "b")
    before = valkey.ask("HGETALL", machines.key)
    for script, *arguments in ((scripts.APPLY, 1, 0), (scripts.APPLY, 1, 2, "a", "late"), (scripts.CONFIRM, 1, 0)):
        valkey.ask("EVAL", script.text, 1, machines.key, "one-1", bench.engine.epoch, *arguments)
        assert valkey.ask("HGETALL", machines.key) == before
    taken = await machines.take("two-2", valkey, "one-1")
    assert await taken.publish("kept", "c") == {"offset": 3, "epoch": first["epoch"]}
    await close(taken)
