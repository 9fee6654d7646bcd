"""Writes that were refused: never acknowledged when they are sent again, unless they were carried out then."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.store.valkey import Server, valkey_engine

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.commands import Command, Outcome
from socketcluster_store.data import applied_log, trees
from socketcluster_store.data.channel_rules import ChannelRules
from socketcluster_store.data.key_chains import record_key
from socketcluster_store.engine import EnginePartition
from socketcluster_store.engines.lmdb import environments
from socketcluster_store.engines.lmdb.engine import LmdbEngine
from socketcluster_store.engines.sorted_map import SortedMap
from socketcluster_store.errors import EngineError, InternalError, InvalidError, SessionOverError
from socketcluster_store.executor import Executor, ExecutorOptions
from socketcluster_store.links import WorkerLink
from socketcluster_store.partition.partition import Partition
from socketcluster_store_client.messages import Operation
from socketcluster_store_client.partitioning import partition_of

ADD, SET, EXISTS, END, ATTACH, PUBLISH = (
    store_pb2.VERB_ADD,
    store_pb2.VERB_SET,
    store_pb2.VERB_EXISTS,
    store_pb2.VERB_SESSION_END,
    store_pb2.VERB_SESSION_ATTACH,
    store_pb2.VERB_CHANNEL_PUBLISH,
)
SESSION = "s"
NUMBER = partition_of(SESSION)
OVER = next(name for name in map(str, range(10_000)) if partition_of(name) == NUMBER)
encode = msgspec.msgpack.encode
decode: Callable[[Any], Any] = msgspec.msgpack.decode


class Kept(EnginePartition):
    """A partition that refuses batches where the test says so, and whose data outlives its owners."""

    number = NUMBER
    epoch = 1

    def __init__(self, values: dict[bytes, bytes]) -> None:
        self.values = values
        self._executor = Executor(NUMBER, ExecutorOptions(1 << 20))
        self.clock = self._executor.clock
        self.refuses = False
        self.later = False

    def apply_now(self, batch: Sequence[Command]) -> list[Outcome] | Awaitable[list[Outcome]]:
        if self.later:
            return self._apply_later(batch)
        return self._apply(batch)

    async def apply(self, batch: Sequence[Command]) -> list[Outcome]:
        return self._apply(batch)

    async def _apply_later(self, batch: Sequence[Command]) -> list[Outcome]:
        await asyncio.sleep(0)
        return self._apply(batch)

    def _apply(self, batch: Sequence[Command]) -> list[Outcome]:
        kv = SortedMap(dict(self.values))
        outcomes = self._executor.apply(kv, batch)
        if self.refuses:
            self._executor.forget()
            raise EngineError("no space left")
        self.values.clear()
        self.values.update(kv.scan(b""))
        return outcomes

    def next_expiry(self) -> float | None:
        return self._executor.next_expiry()

    async def records(self) -> list[tuple[str, bytes]]:
        return trees.records(SortedMap(dict(self.values)))

    async def applied(self) -> list[tuple[bytes, bytes]]:
        return list(SortedMap(dict(self.values)).scan(applied_log.PREFIX))

    @property
    def fenced(self) -> bool:
        return False

    async def sync(self) -> None:
        """Have nothing to do."""

    async def close(self) -> None:
        """Have nothing to do."""


async def take_over(engine: EnginePartition) -> Partition:
    partition = Partition(
        engine,
        session_timeout=1200,
        max_value_bytes=1 << 20,
        channel_rules=ChannelRules(()),
        message_id_window=300,
        tell_workers=lambda _: None,
        on_fenced=lambda _: None,
        turns=asyncio.Semaphore(1),
    )
    await partition.load()
    return partition


class Worker:
    """A worker's process: keeps what was not answered, and sends it again in order before anything else."""

    def __init__(self, engine: Kept) -> None:
        self.engine = engine
        self.waiting: dict[int, Operation] = {}
        self.answers: dict[int, Outcome] = {}
        self.last = 0

    async def owned(self) -> None:
        """Have a new owner, which knows what the engine has."""
        self.engine = Kept(self.engine.values)
        self.partition = await take_over(self.engine)
        self.link = WorkerLink("worker", "incarnation", 1 << 20)

    async def left(self) -> None:
        """Have the owner killed."""
        await self.partition._deadlines.close()

    def operation(self, verb: int, session_id: str = SESSION, key: str = "list", **fields: Any) -> Operation:
        """Return a new operation, which waits for its answer."""
        self.last += 1
        made = Operation(
            self.last, verb, session_id=session_id, keys=(key,), value=encode(self.last), partition=NUMBER, **fields
        )
        self.waiting[self.last] = made
        return made

    async def send(self, operations: Sequence[Operation], heard: int | None = None) -> list[Outcome]:
        """Send operations in one request, and get the first ``heard`` of the answers."""
        first = next(iter(self.waiting), self.last)
        sent = [msgspec.structs.replace(each, behind=max(0, each.id - first)) for each in operations]
        outcomes = self.partition.apply(self.link, sent)
        outcomes = outcomes if isinstance(outcomes, list) else await outcomes
        self.hear(operations, outcomes, heard)
        return outcomes

    def hear(self, operations: Sequence[Operation], outcomes: Sequence[Outcome], heard: int | None) -> None:
        """Get the first answers."""
        for operation, outcome in list(zip(operations, outcomes, strict=True))[:heard]:
            self.answers[operation.id] = outcome
            del self.waiting[operation.id]

    async def do(self, verb: int, *, lost: bool = False, **fields: Any) -> Outcome:
        """Send one new operation."""
        return (await self.send([self.operation(verb, **fields)], 0 if lost else None))[0]

    async def again(self) -> list[Outcome]:
        """Send what waits on a new link."""
        self.link = WorkerLink("worker", "incarnation", 1 << 20)
        return await self.send(list(self.waiting.values()))

    async def stored(self) -> list[int]:
        """Return what is in the list."""
        value = self.engine.values.get(record_key(SESSION.encode(), ("list",), Command(SET, b"")))
        found: list[int] = [] if value is None else decode(value)
        return found


@pytest.fixture(params=["same owner", "next owner"])
def next_owner(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "next owner")


@pytest.fixture
async def worker() -> Any:
    made = Worker(Kept({}))
    await made.owned()
    await made.do(ADD)
    await made.do(END, session_id=OVER)
    yield made
    await made.left()


async def moved(worker: Worker, move: bool) -> None:
    if move:
        await worker.left()
        await worker.owned()


@pytest.mark.parametrize("later", [False, True])
async def test_what_the_engine_refused_is_refused_again_once_a_later_one_was_applied(
    worker: Worker, next_owner: bool, later: bool
) -> None:
    worker.engine.later = later
    worker.engine.refuses = True
    assert isinstance(await worker.do(ADD, lost=True), InternalError)
    worker.engine.refuses = False
    assert isinstance(await worker.do(ADD), bytes)
    await moved(worker, next_owner)
    (outcome,) = await worker.again()
    assert (str(outcome), getattr(outcome, "code", None)) == ("no space left", InternalError.code)
    assert await worker.stored() == [1, 4]


async def test_what_the_engine_refused_is_carried_out_if_nothing_later_was_applied(
    worker: Worker, next_owner: bool
) -> None:
    worker.engine.refuses = True
    for _ in range(3):
        assert isinstance(await worker.do(ADD, lost=True), InternalError)
    worker.engine.refuses = False
    await moved(worker, next_owner)
    assert await worker.again() == [encode(1), encode(2), encode(3)]
    assert await worker.stored() == [1, 3, 4, 5]


@pytest.mark.parametrize("verb", [ADD, SET])
async def test_what_was_carried_out_after_it_was_refused_keeps_its_result(
    worker: Worker, next_owner: bool, verb: int
) -> None:
    assert isinstance(await worker.do(ATTACH), bytes)
    worker.engine.refuses = True
    assert isinstance(await worker.do(verb, lost=True), InternalError)
    worker.engine.refuses = False
    (first,) = await worker.send(list(worker.waiting.values()), heard=0)
    assert first == (encode(1) if verb == ADD else b"")
    assert isinstance(await worker.do(verb), bytes)
    await moved(worker, next_owner)
    assert await worker.again() == [first]


async def test_what_is_refused_before_the_engine_is_asked_is_so_again(worker: Worker, next_owner: bool) -> None:
    assert isinstance(await worker.do(ADD, session_id=OVER, lost=True), SessionOverError)
    assert isinstance(await worker.do(PUBLISH, name="elsewhere", lost=True), InvalidError)
    assert isinstance(await worker.do(ADD), bytes)
    await moved(worker, next_owner)
    outcomes = await worker.again()
    assert [getattr(outcome, "code", 0) for outcome in outcomes] == [SessionOverError.code, InvalidError.code]


async def test_what_is_refused_behind_what_is_applied_may_come_again(worker: Worker, next_owner: bool) -> None:
    batch = [worker.operation(ADD), worker.operation(ADD, session_id=OVER)]
    await worker.send(batch, heard=0)
    await moved(worker, next_owner)
    first = await worker.send(list(worker.waiting.values()), heard=0)
    assert first[0] == encode(1)
    assert getattr(first[1], "code", 0) == SessionOverError.code
    await worker.again()
    for _ in range(3):
        assert isinstance(await worker.do(ADD), bytes)
    assert await worker.stored() == [1, 3, 5, 6, 7]


async def test_a_refusal_that_needs_no_engine_and_that_the_worker_has_is_forgotten(worker: Worker) -> None:
    process = worker.partition._deduplication._processes["worker/incarnation"]
    for _ in range(10):
        assert isinstance(await worker.do(ADD, session_id=OVER), SessionOverError)
        assert len(process.refused) == 1


async def test_a_refusal_that_the_worker_has_is_forgotten(worker: Worker) -> None:
    worker.engine.refuses = True
    for _ in range(10):
        assert isinstance(await worker.do(ADD), InternalError)
    process = worker.partition._deduplication._processes["worker/incarnation"]
    assert len(process.refused) == 1
    worker.engine.refuses = False
    assert isinstance(await worker.do(ADD), bytes)
    assert not process.refused
    assert await worker.stored() == [1, 13]


async def test_a_full_disk_refuses_once_and_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the real engine: what is too large for the journal goes into LMDB, whose commit fails."""
    link = WorkerLink("w", "1", 1 << 20)

    async def load() -> Partition:
        return await take_over(await LmdbEngine(tmp_path, ExecutorOptions(1 << 20), segment_bytes=8192).open(NUMBER))

    async def do(partition: Partition, number: int, verb: int, key: str, value: Any = None) -> Outcome:
        operation = Operation(
            number, verb, session_id=SESSION, keys=(key,), value=encode(value), partition=NUMBER, behind=number - 1
        )
        outcomes = partition.apply(link, [operation])
        return (outcomes if isinstance(outcomes, list) else await outcomes)[0]

    def full(_environment: Any, transaction: Any, _writes: Any) -> None:
        transaction.abort()
        raise OSError(errno.ENOSPC, "No space left on device")

    partition = await load()
    assert await do(partition, 1, SET, "a", 1) == b""
    with monkeypatch.context() as patch:
        patch.setattr(environments, "commit", full)
        assert isinstance(await do(partition, 2, SET, "large", "x" * 20_000), InternalError)
        assert await do(partition, 3, SET, "b", 3) == b""
    for _ in range(2):
        outcome = await do(partition, 2, SET, "large", "x" * 20_000)
        assert getattr(outcome, "code", 0) == InternalError.code
        assert await do(partition, 10, EXISTS, "large") == encode(False)
        await partition.close()
        partition = await load()
    await partition.close()


@pytest.mark.valkey
async def test_what_valkey_refuses_for_lack_of_memory_is_so_once_and_for_all(own: Server) -> None:
    async with valkey_engine(own, ExecutorOptions(1 << 20)) as engine:
        worker = Worker(Kept({}))
        worker.link = WorkerLink("worker", "incarnation", 1 << 20)
        worker.partition = await take_over(await engine.open(NUMBER))
        assert await worker.do(ADD) == encode(0)
        own.ask("CONFIG", "SET", "maxmemory", 1)
        assert isinstance(await worker.do(ADD, lost=True), InternalError)
        own.ask("CONFIG", "SET", "maxmemory", 0)
        assert await worker.do(ADD) == encode(1)
        await worker.partition.close()
        worker.partition = await take_over(await engine.open(NUMBER))
        (outcome,) = await worker.again()
        assert getattr(outcome, "code", 0) == InternalError.code
        await worker.partition.close()


# Any order of refusals, lost answers, breaks and owners.

REFUSED = {"malformed": InvalidError, "over": SessionOverError, "publish": InvalidError}
"""Why what can never be carried out is refused, unless the engine refuses the whole batch."""
steps = st.lists(
    st.tuples(
        st.lists(st.sampled_from(("add", "add", "set", *REFUSED)), max_size=5),  # what is new
        st.lists(st.booleans(), max_size=3),  # which requests does the engine refuse?
        st.booleans(),  # does it take its time?
        st.integers(1, 4),  # how many are sent in a request
        st.sampled_from((None, 0, 1, 2)),  # the answers that arrive before a break; None: all
        st.booleans(),  # is there another owner then?
    ),
    max_size=20,
)


class Play(Worker):
    """A worker that knows what is to become of its operations."""

    def __init__(self) -> None:
        super().__init__(Kept({}))
        self.kinds: dict[int, str] = {}

    def new(self, kind: str) -> None:
        """Have an operation to send."""
        match kind:
            case "add":
                self.operation(ADD)
            case "set":
                self.operation(SET, key="other")
            case "malformed":
                made = self.operation(SET, key="other")
                self.waiting[made.id] = msgspec.structs.replace(made, value=b"\xc1")
            case "over":
                self.operation(ADD, session_id=OVER)
            case _:
                self.operation(PUBLISH, session_id="", name="elsewhere")
        self.kinds[self.last] = kind

    async def step(self, refused: Sequence[bool], later: bool, portion: int, heard: int | None) -> None:
        """Send what waits, and what is to come behind it before anything was answered."""
        self.link = WorkerLink("worker", "incarnation", 1 << 20)
        self.engine.later = later
        operations = list(self.waiting.values())
        outcomes: list[Outcome] = []
        for number, start in enumerate(range(0, len(operations), portion)):
            self.engine.refuses = refused[number] if number < len(refused) else False
            outcomes += await self.send(operations[start : start + portion], heard=0)
        self.hear(operations, outcomes, heard)

    async def check(self) -> None:
        """See that everything became of the operations that was answered, and nothing else."""
        stored = await self.stored()
        applied: dict[int, Any] = {}
        for number, kind in self.kinds.items():
            answer = self.answers[number]
            if isinstance(answer, bytes):
                assert kind in ("add", "set")
                if kind == "add":
                    applied[number] = decode(answer)
            else:
                assert answer.code in (InternalError.code, REFUSED.get(kind, InternalError).code)
        assert stored == list(applied)
        assert list(applied.values()) == list(range(len(stored)))


async def play(steps: Any) -> None:
    worker = Play()
    await worker.owned()
    await worker.do(END, session_id=OVER)
    await worker.do(ATTACH)
    for kinds, refused, later, portion, heard, another in steps:
        for kind in kinds:
            worker.new(kind)
        await worker.step(refused, later, portion, heard)
        if another:
            await worker.left()
            await worker.owned()
    await worker.step((), False, 9, None)
    await worker.check()
    await worker.left()


@settings(deadline=None)
@given(steps)
def test_whatever_is_refused_and_lost_each_answer_is_true(steps: Any) -> None:
    asyncio.run(play(steps))
