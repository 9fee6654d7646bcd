"""What is refused because a session is over is refused, and written as such, when that is decided: not before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from pathlib import Path

import msgspec
import pytest

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.commands import RENEW_SESSION, Command, Outcome
from socketcluster_store.data.channel_rules import ChannelRules
from socketcluster_store.engine import EnginePartition
from socketcluster_store.engines.memory import MemoryEngine
from socketcluster_store.errors import EngineError, SessionOverError
from socketcluster_store.executor import ExecutorOptions
from socketcluster_store.links import WorkerLink
from socketcluster_store.partition.partition import Partition
from socketcluster_store_client.messages import Operation
from socketcluster_store_client.partitioning import partition_of

SESSION = "s"
NUMBER = partition_of(SESSION)
RENEWED, ELSE = [name for name in (f"n{number}" for number in range(1000)) if partition_of(name) == NUMBER][:2]
TRUE = msgspec.msgpack.encode(True)


class Remote:
    """The memory engine's partition, which takes its time for a renewal as Valkey does, and may not keep it."""

    def __init__(self, real: EnginePartition) -> None:
        self.real = real
        self.decided: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        """Set by the test: is the renewal kept?"""
        real_apply = real.apply_now

        def apply_now(batch: Sequence[Command]) -> list[Outcome] | Awaitable[list[Outcome]]:
            if any(command.verb == RENEW_SESSION for command in batch):
                return self._later(batch)
            return real_apply(batch)

        self._apply = real_apply
        real.apply_now = apply_now  # type: ignore[method-assign]

    async def _later(self, batch: Sequence[Command]) -> list[Outcome]:
        if not await self.decided:
            raise EngineError("no memory")
        outcomes = self._apply(batch)
        return outcomes if isinstance(outcomes, list) else await outcomes


@pytest.fixture
async def remote(tmp_path: Path) -> AsyncIterator[Remote]:
    opened = await MemoryEngine(tmp_path, ExecutorOptions(1 << 20)).open(NUMBER)
    yield Remote(opened)
    await opened.close()


async def make(remote: Remote) -> Partition:
    made = Partition(
        remote.real,
        session_timeout=1200,
        max_value_bytes=1 << 20,
        channel_rules=ChannelRules(()),
        message_id_window=300,
        tell_workers=lambda _events: None,
        on_fenced=lambda _number: None,
        turns=asyncio.Semaphore(1),
    )
    await made.load()
    return made


async def apply(partition: Partition, link: WorkerLink, *operations: Operation) -> list[Outcome]:
    outcomes = partition.apply(link, operations)
    return outcomes if isinstance(outcomes, list) else await outcomes


def put(number: int, session_id: str) -> Operation:
    return Operation(
        number, store_pb2.VERB_SET, session_id=session_id, keys=("k",), value=TRUE, partition=NUMBER, behind=number - 1
    )


@pytest.mark.parametrize("kept", [True, False])
async def test_a_write_behind_a_renewal_is_remembered_as_what_became_of_it(remote: Remote, kept: bool) -> None:
    partition = await make(remote)
    one, two = (WorkerLink(name, "incarnation", 1 << 20) for name in ("one", "two"))
    await apply(partition, one, put(1, SESSION))
    renew = Operation(2, store_pb2.VERB_SESSION_RENEW, session_id=SESSION, name=RENEWED, partition=NUMBER)
    renewing = asyncio.create_task(apply(partition, one, renew))
    await asyncio.sleep(0)
    writing = asyncio.create_task(apply(partition, two, put(1, SESSION), put(2, ELSE)))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not any(b"two" in key for key, _record in await remote.real.applied())  # nothing is decided yet
    remote.decided.set_result(kept)
    await renewing
    outcomes = await writing
    assert [type(outcome) for outcome in outcomes] == [SessionOverError if kept else bytes, bytes]
    owner = await make(remote)
    again = await apply(owner, two, put(1, SESSION), put(2, ELSE))
    assert [getattr(outcome, "code", 0) for outcome in again] == [getattr(outcome, "code", 0) for outcome in outcomes]
