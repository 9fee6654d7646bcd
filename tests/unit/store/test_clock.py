"""A partition's time over its owners, whose clocks differ: nothing that has a deadline ends early, or comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from socketcluster_proto.v1 import store_pb2
from socketcluster_store import clock as clock_module
from socketcluster_store.clock import PartitionClock
from socketcluster_store.data.channel_rules import ChannelRules, parse_rule
from socketcluster_store.engine import EnginePartition
from socketcluster_store.engines.lmdb.engine import LmdbEngine
from socketcluster_store.executor import ExecutorOptions
from socketcluster_store.links import WorkerLink
from socketcluster_store.partition import deadlines
from socketcluster_store.partition import partition as partition_module
from socketcluster_store.partition.partition import Partition
from socketcluster_store_client.messages import Operation
from socketcluster_store_client.partitioning import partition_of

SESSION = "s"
NUMBER = partition_of(SESSION)
CHANNEL = next(name for name in map(str, range(10_000)) if partition_of(name) == NUMBER)
SESSION_TIMEOUT = 1200.0
NEVER = 3.5e9
"""Seconds since the Unix epoch that no test comes near."""
encode = msgspec.msgpack.encode
decode: Callable[[Any], Any] = msgspec.msgpack.decode


class Machine:
    """What the system's clocks say, on a machine that tests start, suspend, and set the clock of."""

    def __init__(self) -> None:
        self.boots = 0
        self.elapsed = 0.0
        self.wall = 1_700_000_000.0
        self.start(5000.0)

    def start(self, elapsed: float = 1.0) -> None:
        """Start it, or another one, that has run for some seconds."""
        self.boots += 1
        self.elapsed = elapsed

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.elapsed += seconds
        self.wall += seconds

    def boot(self) -> bytes:
        return b"boot %d" % self.boots

    def clock(self) -> Callable[[], float]:
        """Return the clock of a process that starts now."""
        ahead = self.wall - self.elapsed
        return lambda: self.elapsed + ahead


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(clock_module, "elapsed", lambda: made.elapsed)
    monkeypatch.setattr(clock_module, "boot", made.boot)
    monkeypatch.setattr(partition_module, "EXPIRY_GRACE", 0.0)
    return made


class Owners:
    """The owners of a partition, one after the other."""

    def __init__(self, folder: Path, machine: Machine) -> None:
        self._folder = folder
        self._machine = machine
        self._engine: EnginePartition | None = None
        self._partition: Partition | None = None
        self._id = 0
        self.ended: list[str] = []

    async def next(self, *, killed: bool = False) -> None:
        """Have another process own the partition."""
        await self.leave(killed=killed)
        self._engine = await LmdbEngine(self._folder, ExecutorOptions(1 << 20, clock=self._machine.clock())).open(
            NUMBER
        )
        self._partition = Partition(
            self._engine,
            session_timeout=SESSION_TIMEOUT,
            max_value_bytes=1 << 20,
            channel_rules=ChannelRules([parse_rule("*: 10, 100, 1000")]),
            message_id_window=300,
            tell_workers=lambda events: self.ended.extend(each.session_destroyed.session_id for each in events),
            on_fenced=lambda _: None,
            turns=asyncio.Semaphore(1),
        )
        await self._partition.load()

    async def leave(self, *, killed: bool = False) -> None:
        """Have no process own it."""
        if self._partition is None or self._engine is None:
            return
        if killed:
            await self._partition._deadlines.close()
            await self._engine.close()
        else:
            await self._partition.close()
        self._partition = None

    async def do(self, verb: str, *keys: str, value: Any = None, **fields: Any) -> Any:
        """Carry out an operation; return its decoded result."""
        assert self._partition is not None
        self._id += 1
        operation = Operation(
            self._id,
            store_pb2.Verb.Value(f"VERB_{verb}"),
            keys=keys,
            value=b"" if value is None else encode(value),
            partition=NUMBER,
            **fields,
        )
        outcomes = self._partition.apply(WorkerLink("w", "1", 1 << 20), [operation])
        (outcome,) = outcomes if isinstance(outcomes, list) else await outcomes
        assert isinstance(outcome, bytes), outcome
        return decode(outcome) if outcome else None

    async def left(self) -> float | None:
        """Return how many seconds the value has left."""
        await self.turn()
        left: float | None = await self.do("GET_EXPIRY", "k", session_id=SESSION)
        return None if left is None else round(left, 3)

    async def turn(self) -> None:
        """Let what is due be done."""
        assert self._partition is not None
        parts = self._partition._deadlines
        for end in (parts._expire_due, parts._end_due):
            await end()

    @property
    def now(self) -> float:
        assert self._engine is not None
        return self._engine.clock()

    async def records(self) -> list[str]:
        """Return the ids of the sessions that there are."""
        assert self._engine is not None
        return [session_id for session_id, _record in await self._engine.records()]


@pytest.fixture
async def owners(tmp_path: Path, machine: Machine) -> AsyncIterator[Owners]:
    made = Owners(tmp_path, machine)
    await made.next()
    yield made
    await made.leave()


@pytest.fixture
async def written(owners: Owners) -> Owners:
    """A session without sockets, a value that expires in 60 s, and a message that is kept for 100 s."""
    await owners.do("SET", "k", value=1, session_id=SESSION)
    await owners.do("EXPIRE", "k", value=60, session_id=SESSION)
    await owners.do("CHANNEL_PUBLISH", value="m", name=CHANNEL, message_id="first")
    assert await owners.left() == 60
    return owners


async def messages(owners: Owners) -> int:
    return len((await owners.do("CHANNEL_HISTORY", value={"limit": 10}, name=CHANNEL))["messages"])


@pytest.mark.parametrize("step", [-86_400.0, -1300.0, 1300.0, 86_400.0])
@pytest.mark.parametrize("killed", [False, True])
async def test_a_clock_that_was_set_changes_nothing(
    written: Owners, machine: Machine, step: float, killed: bool
) -> None:
    machine.run(10)
    machine.wall += step
    await written.next(killed=killed)
    assert await written.left() == 50
    assert (written.ended, await messages(written)) == ([], 1)
    again = await written.do("CHANNEL_PUBLISH", value="m", name=CHANNEL, message_id="first")
    assert (again["offset"], await messages(written)) == (1, 1)
    machine.run(49)
    assert await written.left() == 1
    machine.run(1)
    assert await written.left() is None
    machine.run(39)
    assert await messages(written) == 1
    machine.run(1)
    assert await messages(written) == 0
    machine.run(SESSION_TIMEOUT - 102)
    await written.turn()
    assert written.ended == []
    machine.run(2)
    await written.turn()
    assert written.ended == [SESSION]


@pytest.mark.parametrize("killed", [False, True])
async def test_the_time_of_a_suspend_counts_once(written: Owners, machine: Machine, killed: bool) -> None:
    machine.run(30)  # suspended, by whatever clock: ``elapsed`` goes on
    assert await written.left() == 30
    await written.next(killed=killed)
    assert await written.left() == 30


@pytest.mark.parametrize(("elapsed", "step"), [(1.0, 0.0), (1e7, 5000.0), (1e7, -5000.0)])
async def test_on_another_machine_or_after_a_boot_deadlines_carry_what_was_left(
    written: Owners, machine: Machine, elapsed: float, step: float
) -> None:
    machine.run(10)
    await written.leave()
    machine.start(elapsed)
    machine.wall += step
    await written.next()
    assert await written.left() == 50
    machine.run(20)
    await written.next(killed=True)
    assert await written.left() == 30
    assert (written.ended, await messages(written)) == ([], 1)


async def test_after_a_kill_with_the_machine_the_last_write_is_what_was_reached(
    written: Owners, machine: Machine
) -> None:
    machine.run(20.5)
    await written.do("SET", "other", value=2, session_id=SESSION)
    reached = written.now
    machine.run(5)
    await written.leave(killed=True)
    machine.start()
    machine.wall += 10_000
    await written.next()
    assert reached <= written.now <= reached + 1
    left = await written.left()
    assert left is not None
    assert 38.5 <= left <= 39.5


async def test_a_detached_session_has_no_more_left_than_it_had_although_nothing_tells_when_it_was_detached(
    owners: Owners, machine: Machine
) -> None:
    await owners.next()  # which notes the time
    machine.run(3000)
    await owners.do("SESSION_ATTACH", session_id=SESSION)
    await owners.do("SESSION_DETACH", session_id=SESSION)
    await owners.leave(killed=True)
    machine.start()
    await owners.next()
    machine.run(SESSION_TIMEOUT - 1)
    await owners.turn()
    assert owners.ended == []
    machine.run(1)
    await owners.turn()
    assert owners.ended == [SESSION]


async def test_a_system_that_does_not_tell_its_boot_is_another_one_each_time(
    written: Owners, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock_module, "boot", lambda: b"")
    await written.next()
    machine.run(10)
    await written.leave()
    machine.run(1000)
    await written.next()
    left = await written.left()
    assert left is not None
    assert 49 <= left <= 50


async def test_a_partition_without_a_record_is_as_late_as_what_it_holds() -> None:
    clock = PartitionClock(lambda: 100.0)
    assert clock() == 100
    clock.take_over(None, lambda: 0.0)
    assert clock() == 100
    clock.take_over(None, lambda: 5000.0)  # written while the machine's clock was ahead
    assert clock() == 5000


def test_the_boot_is_named_where_the_system_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_module, "BOOT_ID", tmp_path / "boot_id")
    monkeypatch.setattr(clock_module, "TIME_NAMESPACE", tmp_path / "time")
    assert clock_module.boot() == b""
    (tmp_path / "boot_id").write_bytes(b"one\n")
    assert clock_module.boot() == b"one"
    (tmp_path / "time").symlink_to("time:[1]")
    assert clock_module.boot() == b"one time:[1]"


async def test_the_time_is_noted_now_and_then(
    owners: Owners, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "NOTED_EVERY", 0.0)
    monkeypatch.setattr(deadlines, "UPKEEP_EVERY", 0.0)
    await owners.next()
    machine.run(3600)
    reached = owners.now
    noted: Any = owners._engine
    while noted._memtable.get(b"t")[:8] != clock_module._RECORD.pack(reached, 0)[:8]:  # noqa: ASYNC110
        await asyncio.sleep(0)
    monkeypatch.setattr(clock_module, "boot", lambda: b"another")
    await owners.next(killed=True)
    assert owners.now >= reached


# Any number of owners.

lives = st.lists(
    st.tuples(
        st.lists(st.floats(0, 1000), max_size=4),  # seconds before each write
        st.floats(0, 1000),  # seconds from the last one to the end
        st.booleans(),  # killed
        st.sampled_from(["process", "boot", "machine"]),  # what is another one then
        st.floats(-1e6, 1e6),  # by what the wall clock is set
        st.floats(0, 1e5),  # seconds until the next owner comes
    ),
    min_size=1,
    max_size=12,
)


@settings(deadline=None)
@given(lives)
def test_time_never_goes_back_and_never_hurries(lives: Any) -> None:
    machine = Machine()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock_module, "elapsed", lambda: machine.elapsed)
        patch.setattr(clock_module, "boot", machine.boot)
        clock = PartitionClock(machine.clock())
        clock.take_over(None, lambda: 0.0)
        began, record = clock(), clock.record()
        lived = may_have_lived = 0.0
        newest = 0.0
        for writes, rest, killed, other, step, pause in lives:
            for seconds in (*writes, rest):
                machine.run(seconds)
                lived += seconds
                may_have_lived += seconds
                if seconds is not rest:
                    newest = float(int(clock()) + 1)
            at_last = clock()
            if not killed:
                record = clock.record()
            machine.wall += step
            machine.run(pause)
            may_have_lived += pause
            if other != "process":
                machine.start(1.0 if other == "boot" else 1e6)
            clock = PartitionClock(machine.clock())
            clock.take_over(record, lambda newest=newest: newest)  # type: ignore[misc]
            record = clock.record()
            slack = 1e-3 * len(lives)
            if other == "process":
                assert clock() >= at_last + pause - slack
            else:
                assert clock() >= (newest if killed else at_last) - slack
            assert clock() <= began + may_have_lived + len(lives) + slack  # a write's time is rounded up
