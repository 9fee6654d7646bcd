"""Every operation, on every engine, against a plain-Python model; and watchers' copies against what they watch."""

from __future__ import annotations

import asyncio
import copy
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from support.store.tree_model import MISSING, Model, Refused, look

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.commands import CHANGES, END_SESSION, EXPIRE_DUE, Command, Outcome
from socketcluster_store.data.procedures import Procedures, Store
from socketcluster_store.data.watches import KeyChange
from socketcluster_store.engine import Engine
from socketcluster_store.engines.lmdb.engine import LmdbEngine
from socketcluster_store.engines.memory import MemoryEngine
from socketcluster_store.engines.valkey.engine import ValkeyEngine
from socketcluster_store.engines.valkey.servers import Servers
from socketcluster_store.errors import ProcedureError
from socketcluster_store.executor import ExecutorOptions

MAX_VALUE = 160
MAX_SESSION = 300
SESSIONS = ("ada", "bob")
BUDGET = settings(
    max_examples=50,
    stateful_step_count=60,
    derandomize=True,
    phases=[Phase.generate],  # shrinking takes minutes; a failure's sixty steps can be read
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)

encode = msgspec.msgpack.encode
decode: Callable[[bytes], Any] = msgspec.msgpack.decode
decode_changes = msgspec.msgpack.Decoder(list[KeyChange]).decode

CHAINS = [
    ("a",),
    ("b",),
    ("a", "0"),
    ("a", "1"),
    ("a", "b"),
    ("a", "1", "b"),
    ("b", "a"),
    ("b", "a", "0"),
    ("b", "7"),
]
"""Few, so that operations meet."""
VALUES = [
    None,
    True,
    0,
    -1.5,
    "text",
    b"bytes",
    [],
    {},
    [1, 2, 3],
    [{"b": 1}, {"b": {"c": 2}}],
    {"0": 1, "1": [2]},
    {"a": [1, 2], "7": 3, "b": {}},
    "x" * 60,
    ["y" * 100],
    {"b": "z" * 200},
]
chains = st.sampled_from([*CHAINS, *CHAINS, ("c", "d"), ("\0own",), ("k",) * 33])
sessions = st.sampled_from(["ada", "ada", "ada", "bob"])
values = st.sampled_from(VALUES)
bounds = st.sampled_from([None, 0, 1, 2, -1, -2, 9])
seconds = st.sampled_from([0, 1, 2.5, 10, 10, 10, -1, True, 1e30])

steps = st.one_of(
    *(st.tuples(st.just(verb), chains) for verb in ("get", "exists", "pop", "unexpire", "get_expiry")),
    *(st.tuples(st.just(verb), st.sampled_from([*CHAINS, ()])) for verb in ("count", "get_all", "remove_all")),
    *(st.tuples(st.just(verb), chains, values) for verb in ("set", "add", "concat", "set", "add", "concat", "set")),
    *(st.tuples(st.just(verb), chains, bounds, bounds) for verb in ("get_range", "remove_range")),
    st.tuples(st.just("remove"), chains, st.booleans()),
    *(st.tuples(st.just("expire"), chains, seconds) for _ in range(3)),
)


def command_of(session: str, verb: str, chain: tuple[str, ...], *args: Any) -> Command:
    """Return the store's command for a step of the model."""
    value = encode(args) if verb.endswith("_range") else encode(args[0]) if args else b""
    return Command(store_pb2.Verb.Value(f"VERB_{verb.upper()}"), session.encode(), chain, value)


def script(tree: Any, todo: list[list[Any]], fails: bool) -> list[Any]:
    """Be a procedure that does what it is told."""
    results = []
    for verb, chain, *args in todo:
        named = {"get_value": args.pop()} if verb == "remove" else {}
        results.append(getattr(tree, verb)(chain, *args, **named))
    if fails:
        raise LookupError("told to fail")
    return results


def tried(work: Callable[[], Any]) -> tuple[str, Any]:
    """Return the name of the model's refusal, or its result."""
    try:
        return "", work()
    except Refused as refused:
        return str(refused), None


def at_once(work: Coroutine[Any, Any, Any]) -> Any:
    """Run what does not suspend."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it suspends")


class Trees(RuleBasedStateMachine):
    """One partition, and its model."""

    make: Callable[[Path, ExecutorOptions], Engine]
    runner: asyncio.Runner

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="sc", dir="/tmp"))
        self.model = Model(MAX_VALUE, MAX_SESSION)
        procedures = Procedures()
        Store(procedures).procedure(script)
        options = ExecutorOptions(
            MAX_VALUE, max_session_bytes=MAX_SESSION, procedures=procedures, clock=lambda: self.model.now
        )
        self.engine = type(self).make(self.folder, options)
        self.runner.run(self.engine.connect())
        self.partition = self.runner.run(self.engine.open(5))
        self.copies: dict[tuple[str, tuple[str, ...]], Model] = {}
        self.counts: dict[tuple[str, tuple[str, ...]], int] = {}

    def teardown(self) -> None:
        self.runner.run(self.partition.close())
        self.runner.run(self.engine.disconnect())
        shutil.rmtree(self.folder)

    def apply(self, *commands: Command) -> list[Outcome]:
        """Apply commands, and let the watchers' copies follow."""
        run = self.runner.run if self.engine.remote else at_once
        outcomes: list[Outcome] = run(self.partition.apply([*commands, Command(CHANGES, b"")]))
        changes = outcomes.pop()
        assert isinstance(changes, bytes)
        for change in decode_changes(changes):
            self.follow(change)
        return outcomes

    def follow(self, change: KeyChange) -> None:
        """Do to a copy what was done to what is watched."""
        watched = change.session_id.decode(), change.watched
        if change.operation == "":
            self.counts[watched] = change.number
            return
        assert change.number == self.counts[watched] + 1  # none is missed
        self.counts[watched] += 1
        mirror = self.copies[watched]
        operation, session = change.operation, watched[0]
        if operation == "end":
            mirror.end(session)
            del self.copies[watched], self.counts[watched]
        elif operation in ("remove", "expire"):
            if mirror.exists(session, change.keys):
                mirror.do("remove", session, change.keys)
        elif operation in ("pop", "remove_all"):
            mirror.do(operation, session, change.keys)
        elif operation == "remove_range":
            mirror.do(operation, session, change.keys, *decode(change.value))
        else:
            mirror.do(operation, session, change.keys, decode(change.value))

    def agree(self, outcome: Outcome, expected: Callable[[], Any]) -> None:
        """Check an outcome against what the model says."""
        refused, result = tried(expected)
        if refused:
            assert type(outcome).__name__ == refused, outcome
        else:
            assert isinstance(outcome, bytes), (outcome, result)
            assert (outcome or encode(None)) == encode(result)

    @initialize()
    def begin(self) -> None:
        """Have something of the services' own in a tree."""
        self.step("ada", ("set", ("\0own",), 1))
        self.watch_everything()

    @rule(session=sessions, step=steps)
    def step(self, session: str, step: tuple[Any, ...]) -> None:
        """Carry one operation out."""
        verb, chain, *args = step
        command = command_of(session, verb, chain, *args)
        (outcome,) = self.apply(command)
        self.agree(outcome, lambda: self.model.do(verb, session, chain, *args))

    @rule(value=st.sampled_from(["list", "map"]))
    def fill(self, value: str) -> None:
        """Begin anew with something to work on, some of which is to expire."""
        self.step("ada", ("set", ("b",), None))
        for key in ("a", "b"):
            self.step("ada", ("set", (key,), [1, {"b": 2}, 3] if value == "list" else {"a": [4, 5], "b": 6, "7": 8}))
        for chain in (("a",), ("a", "1"), ("a", "b"), ("b", "a", "0")):
            self.step("ada", ("expire", chain, 10))

    @rule()
    def watch_everything(self) -> None:
        """Watch whatever can be."""
        for chain in [*CHAINS, ()]:
            self.watch("ada", chain)

    @rule(session=sessions, todo=st.lists(steps, max_size=5))
    def transaction(self, session: str, todo: list[tuple[Any, ...]]) -> None:
        """Carry several out as one."""
        commands = [command_of(session, *step) for step in todo]
        value = encode([(command.verb, command.keys, command.value) for command in commands])
        (outcome,) = self.apply(Command(store_pb2.VERB_TRANSACTION, session.encode(), (), value))
        self.agree(outcome, lambda: self.model.several(todo, session))

    @rule(session=sessions, todo=st.lists(steps, max_size=5), fails=st.booleans())
    def run(self, session: str, todo: list[tuple[Any, ...]], fails: bool) -> None:
        """Call a procedure that carries several out, and may fail after that."""
        value = encode([todo, fails])
        (outcome,) = self.apply(Command(store_pb2.VERB_RUN, session.encode(), (), value, "script"))
        before = copy.deepcopy((self.model.trees, self.model.expiries))
        refused, results = tried(lambda: self.model.several(todo, session))
        if refused:
            assert type(outcome).__name__ == refused, outcome
        elif fails or len(encode(results)) > MAX_VALUE:
            assert isinstance(outcome, ProcedureError)
            self.model.trees, self.model.expiries = before
        else:
            assert outcome == encode(results)

    @rule(session=sessions, chain=chains, value=values, current=st.booleans())
    def update(self, session: str, chain: tuple[str, ...], value: Any, current: bool) -> None:
        """Compare and set, having seen the present value or another one."""

        def expected() -> Any:
            found = self.model.do("get", session, chain)
            if not current:
                return False, found
            self.model.do("set", session, chain, value)
            return True, None

        seen = encode(self.model.get(session, chain)) if current else b"something else"
        digest = blake2b(seen, digest_size=16).digest()
        (outcome,) = self.apply(Command(store_pb2.VERB_UPDATE, session.encode(), chain, encode((digest, value))))
        self.agree(outcome, expected)

    @rule(seconds=st.sampled_from([0.5, 2.5, 20.0]))
    def pass_time(self, seconds: float) -> None:
        """Let time pass, and what is due expire."""
        self.model.now += seconds
        due = min(self.model.expiries.values(), default=None)
        assert self.partition.next_expiry() == due
        assert self.apply(Command(EXPIRE_DUE, b"")) == [b""]
        self.model.expire_due()

    @rule(session=sessions, really=st.integers(0, 3))
    def end_session(self, session: str, really: int) -> None:
        """End a session, not too often."""
        if really:
            return
        self.apply(Command(END_SESSION, session.encode()))
        self.model.end(session)

    @rule(session=sessions, chain=st.sampled_from([*CHAINS, ()]))
    def watch(self, session: str, chain: tuple[str, ...]) -> None:
        """Watch a key chain, with a copy of what stands there."""
        if (session, chain) in self.copies:
            return
        mirror = self.copies[session, chain] = Model(1 << 20, 1 << 20)
        mirror.trees[session] = {}
        for key in [chain] if chain else [(key,) for key in self.model.tree(session)]:
            found = look(self.model.trees.get(session, {}), key)
            if found is not MISSING:
                holder = mirror.trees[session]
                for part in key[:-1]:
                    holder = holder.setdefault(part, {})
                holder[key[-1]] = decode(encode(found))
        assert self.apply(Command(store_pb2.VERB_WATCH, session.encode(), chain)) == [b""]

    @rule()
    def forget(self) -> None:
        """Lose all that is remembered beside the data, as after a commit that failed."""
        self.partition._executor.forget()  # type: ignore[attr-defined]
        self.apply()

    @rule()
    def reopen(self) -> None:
        """Close the partition and open it again, if its engine keeps anything."""
        if self.engine.name == "memory":
            return
        self.runner.run(self.partition.close())
        self.partition = self.runner.run(self.engine.open(5))
        self.apply()

    @invariant()
    def trees_are_the_models(self) -> None:
        """Compare every tree, with the order of its keys."""
        for session in SESSIONS:
            (outcome,) = self.apply(command_of(session, "get_all", ()))
            assert outcome == encode(self.model.tree(session))

    @invariant()
    def copies_are_what_is_watched(self) -> None:
        """Compare every watcher's copy."""
        for (session, chain), mirror in self.copies.items():
            if not chain:
                assert encode(mirror.tree(session)) == encode(self.model.tree(session))
            elif (found := look(self.model.trees.get(session, {}), chain)) is MISSING:
                assert not mirror.exists(session, chain)
            else:
                assert encode(mirror.get(session, chain)) == encode(found)


@pytest.mark.parametrize("engine", ["memory", "lmdb", pytest.param("valkey", marks=pytest.mark.valkey)])
def test_every_operation_does_what_the_model_does(engine: str, request: pytest.FixtureRequest) -> None:
    def valkey(folder: Path, options: ExecutorOptions) -> Engine:
        return ValkeyEngine(Servers(url, 5), options, app_name=folder.name, store_id="one-1")

    url = request.getfixturevalue("valkey").url if engine == "valkey" else ""
    makers: dict[str, Callable[[Path, ExecutorOptions], Engine]] = {
        "memory": MemoryEngine,
        "lmdb": LmdbEngine,
        "valkey": valkey,
    }
    with asyncio.Runner() as runner:
        machine = type(f"Trees of {engine}", (Trees,), {"make": staticmethod(makers[engine]), "runner": runner})
        run_state_machine_as_test(machine, settings=settings(BUDGET, max_examples=15) if engine == "valkey" else BUDGET)
