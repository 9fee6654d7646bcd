"""What is done to the stores, and when: all of it follows from the seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from support.store.processes import NAMES

from history.stores import HANG_TIMEOUT, VALKEY_TIMEOUT, Setting

SHIFTS = (1.0, 30.0, 1000.0, 5000.0)
"""Seconds; longer than a worker's record is kept, and than a session or a message may be."""
SHORT_SESSIONS = 3.0


@dataclass(frozen=True)
class Step:
    """A fault.

    Attributes:
        at: seconds from the begin at which it is done, or later if the one before takes longer.
        kind: a method of ``faults.Faults``.
        target: the store, the worker's or primary's number, or nothing.
        lasting: seconds until it is mended.
        amount: what the kind makes of it: seconds of a clock, writes of a burst.
    """

    at: float
    kind: str
    target: str = ""
    lasting: float = 0.0
    amount: float = 0.0

    def __str__(self) -> str:
        amount = f" of {self.amount:g}" if self.amount else ""
        lasting = f" for {self.lasting:.2f} s" if self.lasting else ""
        return f"{self.at:5.1f} s: {self.kind} {self.target}{lasting}{amount}"


@dataclass(frozen=True)
class Plan:
    """What a run is to be.

    Attributes:
        seed: what all of it follows from.
        seconds: how long faults are done.
        setting: of the stores.
        store_timeout: of the workers, seconds.
        weight: of large values and of bursts, 0 to 1: from Valkey a store reads the whole partition that it opens.
        steps: in the order of their times.
    """

    seed: int
    seconds: float
    setting: Setting
    store_timeout: float
    weight: float
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        head = f"seed {self.seed}, {self.seconds:g} s, {self.setting}, store_timeout {self.store_timeout:g}"
        return "\n".join([head, *(f"    {step}" for step in self.steps)])


def plan(seed: int, seconds: float, engine: str, *, can_mount: bool) -> Plan:
    """Make the plan of a seed."""
    chance = random.Random(seed)
    local = engine == "lmdb"
    setting = Setting(
        engine=engine,
        fsync="always" if local and chance.random() < 0.3 else "everysec",
        session_timeout=SHORT_SESSIONS if chance.random() < 0.3 else 1200.0,
        replicas=1 if chance.random() < 0.7 else 0,
        small_disk=(chance.random() < 0.25) and local and can_mount,
    )
    kinds: list[tuple[float, Callable[[random.Random], Step]]] = [
        (3, _kill),
        (6, _hang),
        (1, _terminate),
        (1, _kill_worker),
        (1.5, _shift),
        (0.5, _burst),
    ]
    if setting.small_disk:
        kinds.append((2, lambda chance: Step(0, "fill_disk", lasting=chance.uniform(0.3, 2))))
    if engine == "valkey":
        flush = chance.random() < 0.2
        kinds += [(2, _pause_valkey), (1, _kill_valkey), *([(1, _empty_valkey)] if flush else [])]
    if engine == "valkey-cluster":
        kinds += [(1, _pause_valkey), (1, _kill_valkey), (2, _fail_over), *([(1, _lose_primary)] * 2)]
    weights = [weight for weight, _make in kinds]
    favourite = chance.randrange(len(kinds))
    weights[favourite] *= 2
    steps = tuple(_steps(chance, seconds, [make for _weight, make in kinds], weights))
    return Plan(seed, seconds, setting, chance.choice((4.0, 10.0, 10.0)), 1.0 if local else 0.2, steps)


def _steps(
    chance: random.Random, seconds: float, kinds: list[Callable[[random.Random], Step]], weights: list[float]
) -> Iterator[Step]:
    at = 1.0
    while at < seconds:
        (make,) = chance.choices(kinds, weights)
        step = make(chance)
        yield Step(at, step.kind, step.target, step.lasting, step.amount)
        # some begin while the one before is not mended yet
        at += chance.uniform(0.1, 1.0) if chance.random() < 0.3 else step.lasting + chance.uniform(0.5, 3.0)


def _store(chance: random.Random) -> str:
    return chance.choice(NAMES)


def _kill(chance: random.Random) -> Step:
    return Step(0, "kill", _store(chance), lasting=chance.choice((0.0, 0.3, 2.0)))


def _terminate(chance: random.Random) -> Step:
    return Step(0, "terminate", _store(chance), lasting=chance.choice((0.0, 1.0)))


def _hang(chance: random.Random) -> Step:
    """Around the time after which a store counts as hung, often with much that waits for it."""
    of_timeout = chance.choice((chance.uniform(0.7, 1.0), chance.uniform(1.1, 1.6), chance.uniform(1.1, 1.6), 4.0))
    writes = chance.choice((0, 100, 300, 600, 800))
    kind = chance.choice(("hang", "hang", "hang_in_a_rush"))
    return Step(0, kind, _store(chance), lasting=HANG_TIMEOUT * of_timeout, amount=writes)


def _kill_worker(chance: random.Random) -> Step:
    return Step(0, "kill_worker", chance.choice("12"), lasting=chance.uniform(0, 1))


def _shift(chance: random.Random) -> Step:
    """Before a store is started again, or while it runs."""
    kind = chance.choice(("shift", "shift_and_kill"))
    return Step(0, kind, _store(chance), amount=chance.choice(SHIFTS) * chance.choice((1, -1)))


def _burst(chance: random.Random) -> Step:
    return Step(0, "burst", amount=chance.choice((100, 300)))


def _pause_valkey(chance: random.Random) -> Step:
    kind = chance.choice(("stop_valkey", "pause_valkey"))
    return Step(0, kind, chance.choice("012"), lasting=VALKEY_TIMEOUT * chance.choice((0.3, 0.8, 1.5)))


def _kill_valkey(chance: random.Random) -> Step:
    return Step(0, "kill_valkey", chance.choice("012"), lasting=chance.choice((0.0, 0.5)))


def _empty_valkey(_chance: random.Random) -> Step:
    return Step(0, "empty_valkey")


def _fail_over(chance: random.Random) -> Step:
    """As an operator asks for it: nothing is lost."""
    return Step(0, "fail_over", chance.choice("012"))


def _lose_primary(chance: random.Random) -> Step:
    """Its replica takes over by itself; without ``replicas`` what it had not got yet is lost."""
    return Step(0, "lose_primary", chance.choice("012"))
