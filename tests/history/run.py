"""A run: stores, workers and faults by a plan; at its end all is mended, read, and judged."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field

from history.clients import (
    COUNTERS,
    Keys,
    clients,
    publication,
    read_count,
    read_expiring,
    read_list,
    read_register,
    read_session,
    until_done,
)
from history.faults import Faults
from history.judge import judge
from history.plan import Plan
from history.record import Call, History, Message, Missed, Violation
from history.sessions import judge_left_sessions
from history.stores import Stores
from history.workers import CHANNELS, Worker

ATTEMPTS = 12
"""Of a read at the end; each waits for ``store_timeout``, so whoever is still not answered never will be."""
LONGEST_WAIT = 120.0
"""Seconds at the end for what is told by itself: far more than any machine needs."""
PROGRESS = 5.0
"""Seconds between two lines."""


@dataclass
class Report:
    """What became of a run.

    Attributes:
        violations: all of them, the rule's that the history itself shows first.
        history: what happened.
        log: what was done, each with its time since the begin.
        summary: in a line.
    """

    violations: list[Violation] = field(default_factory=list)
    history: History = field(default_factory=History)
    log: list[str] = field(default_factory=list)
    store_logs: dict[str, str] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """Say what was done."""
        outcomes = Counter(call.outcome for call in self.history.calls)
        told = Counter(type(each).__name__.lower() for each in self.history.told)
        counts = [f"{count} {name}" for name, count in [*sorted(outcomes.items()), *sorted(told.items())]]
        return f"{', '.join(counts)}; {len(self.violations)} violations"


async def run(plan: Plan, say: Callable[[str], None] = lambda _line: None) -> Report:
    """Carry a plan out.

    Args:
        plan: what is to be done.
        say: is told what happens, a line at a time.
    """
    early = 0.0 if plan.setting.engine == "lmdb" else 1.0
    report = Report(history=History(session_timeout=plan.setting.session_timeout, early=early))
    history, begun = report.history, time.monotonic()

    def note(line: str) -> None:
        report.log.append(f"{time.monotonic() - begun:6.2f} s ({time.monotonic():.2f}): {line}")
        say(report.log[-1])

    keys = Keys(plan.setting.session_timeout)
    async with contextlib.AsyncExitStack() as stack:
        stores = await stack.enter_async_context(Stores(plan.setting, note))
        workers = [
            Worker(number, stores.addresses, history, plan.store_timeout, clients(keys), plan.seed, plan.weight)
            for number in (1, 2)
        ]
        for worker in workers:
            await worker.start()
            stack.push_async_callback(worker.close)
        for worker in workers:
            await worker.client.wait_ready()
        note("all is there")
        progress = asyncio.create_task(_tell_progress(history, note))
        try:
            await Faults(stores, workers, history, note).do(plan.steps)
        finally:
            progress.cancel()
        stores.mend()
        note("all is mended")
        await asyncio.gather(*(worker.finish() for worker in workers))
        note("all clients have their answers")
        unserved = list(await _look(plan, stores, workers, history, keys))
        report.violations = [*judge(history), *unserved]
        report.store_logs = {name: stores.log_of(name) for name in ("one", "two", "three")}
        note(report.summary)
    return report


async def _look(
    plan: Plan, stores: Stores, workers: Sequence[Worker], history: History, keys: Keys
) -> Iterator[Violation]:
    """Read everything by a worker that is new, and hear everything; what is still not answered is wrong by itself."""
    reader = Worker(3, stores.addresses, history, plan.store_timeout, {}, plan.seed)
    await reader.start(CHANNELS[:0])
    try:
        lists = {call.key for call in history.calls if call.what == "add"}
        counters = [f"counter{number}" for number in range(COUNTERS)]
        reads: list[Callable[[Worker], Awaitable[Call]]] = [
            *(lambda worker, key=key: read_list(worker, "end", key) for key in sorted(lists)),
            *(lambda worker, key=key: read_count(worker, "end", key) for key in counters),
            *(lambda worker, key=key: read_register(worker, "end", key) for key in keys.registers),
            *(lambda worker, key=key: read_expiring(worker, "end", key) for key in keys.expiring),
            *(lambda worker, key=key: read_session(worker, "end", key) for key in keys.sessions),
        ]
        marks = [
            lambda worker, channel=channel: publication(worker, "end", channel, f"{worker.name}/end/{channel}", 10)
            for channel in CHANNELS
        ]
        done = await _all(reader, reads)
        for worker in workers:  # each has its own idea of where the partitions are
            done += await _all(worker, [*reads[:: max(1, len(reads) // 100)], *marks])
        deadline = time.monotonic() + LONGEST_WAIT
        while not _is_quiet(history) and time.monotonic() < deadline:  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0.2)
    finally:
        await reader.close()
    return (Violation("end", call.key, "it is not served", (call,)) for call in done if not call.done)


async def _all(worker: Worker, calls: Sequence[Callable[[Worker], Awaitable[Call]]]) -> list[Call]:
    """Make calls, not all at once."""
    at_once = asyncio.Semaphore(50)

    async def one(call: Callable[[Worker], Awaitable[Call]]) -> Call:
        async with at_once:
            return await until_done(lambda: call(worker), ATTEMPTS)

    return list(await asyncio.gather(*map(one, calls)))


def _is_quiet(history: History) -> bool:
    """Has every worker heard of the last messages, and of the end of what it left?"""
    where: dict[tuple[str, str], int] = {}
    for told in history.told:
        if isinstance(told, Message | Missed):
            where[told.worker, told.key] = told.place[1] if isinstance(told, Message) else told.now[1]
    last = [call for call in history.calls if call.what == "publish" and call.client.endswith("/end") and call.done]
    if any(where.get((worker, call.key), 0) < call.answer[1] for call in last for worker in history.alive):
        return False
    return next(judge_left_sessions(history), None) is None


async def _tell_progress(history: History, note: Callable[[str], None]) -> None:
    while True:
        await asyncio.sleep(PROGRESS)
        outcomes = Counter(call.outcome for call in history.calls)
        note(", ".join(f"{count} {name}" for name, count in sorted(outcomes.items())))
