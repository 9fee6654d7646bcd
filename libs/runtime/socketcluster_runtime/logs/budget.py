"""A budget for log lines: what happens a thousand times a second is told a few times, then counted.

Most lines say what a client, or a store, did; who can do it once can do it at any rate. So each kind of line has a
budget: the place that logs, the place that raised, and the part of the cluster that it is about.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Hashable
from typing import Any, TextIO

from socketcluster_runtime.logs import conditions

BURST = 5
"""Lines of one kind that are written at once."""
INTERVAL = 1.0
"""Seconds in which one more may be written; and after which what was held back is told, as one line with a count."""
MAX_KINDS = 1000
"""Kinds of lines that are told apart; what is beyond them shares one budget."""

LIBRARIES = frozenset({"asyncio", "concurrent", "grpc", "redis", "starlette", "uvicorn", "valkey", "websockets"})
"""Whose lines have a budget beside the project's own. What a user's code logs is the user's business."""
PROJECT = frozenset(f"socketcluster{part}" for part in ("", "_balancer", "_runtime", "_store", "_worker"))
PARTS = ("address", "partition", "process", "store", "worker")
"""Fields that name a part of the cluster: there are few, no client chooses them, and each is news."""


class Budget:
    """How many lines of one kind may be written now, and what was held back."""

    def __init__(self, now: float) -> None:
        self._left = float(BURST)
        self._since = now
        self._held: logging.LogRecord | None = None
        self._count = 0

    def take(self, record: logging.LogRecord, now: float) -> bool:
        """May ``record`` be written? If not, it is held, and told of later."""
        self._left = min(BURST, self._left + (now - self._since) / INTERVAL)
        self._since = now
        if self._left >= 1 and self._held is None:
            self._left -= 1
            return True
        self._held = record
        self._count += 1
        return False

    def settle(self, now: float) -> logging.LogRecord | None:
        """Return the last line that was held back, with the count of all, or ``None`` if there is none."""
        record, count = self._held, self._count
        if record is None:
            return None
        self._held, self._count = None, 0
        self._left, self._since = 0.0, now
        record = logging.makeLogRecord(record.__dict__)
        if count == 1:
            pass
        elif isinstance(record.msg, dict):  # structlog's
            fields: dict[str, Any] = {**record.msg, "times": count}
            record.msg = fields
        else:
            record.__dict__["times"] = count
        return record

    def is_whole(self, now: float) -> bool:
        """Would a new one differ in nothing?"""
        return self._held is None and self._left + (now - self._since) / INTERVAL >= BURST


class BudgetHandler(logging.StreamHandler[TextIO]):
    """Writes log lines to a stream; of one kind ``BURST`` at once, then a line with a count each ``INTERVAL``.

    What was held back is written by a thread's timer, so that it comes whatever loop runs, or none.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._budgets: dict[Hashable, Budget] = {}
        self._timer: threading.Timer | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or hold it back; ``handle`` has the lock."""
        package = record.name.partition(".")[0]
        if package not in PROJECT and package not in LIBRARIES:
            super().emit(record)
            return
        now = time.monotonic()
        kind = kind_of(record)
        budget = self._budgets.get(kind)
        if budget is None:
            budget = self._add(kind, now)
        if budget.take(record, now):
            super().emit(record)
        elif self._timer is None:
            self._timer = threading.Timer(INTERVAL, self.settle)
            self._timer.daemon = True
            self._timer.start()

    def settle(self) -> None:
        """Write what was held back."""
        self.acquire()
        try:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            now = time.monotonic()
            for budget in self._budgets.values():
                record = budget.settle(now)
                if record is not None:
                    super().emit(record)
        finally:
            self.release()

    def close(self) -> None:
        """Write what was held back, and nothing more by itself."""
        self.settle()
        super().close()

    def _add(self, kind: Hashable, now: float) -> Budget:
        if len(self._budgets) >= MAX_KINDS:
            self._budgets = {key: each for key, each in self._budgets.items() if not each.is_whole(now)}
        if len(self._budgets) >= MAX_KINDS:
            kind = None
        return self._budgets.setdefault(kind, Budget(now))


def kind_of(record: logging.LogRecord) -> Hashable:
    """Return what makes two records the same news: the line that logs, what was raised and where, about whom."""
    fields: dict[str, object] = record.msg if isinstance(record.msg, dict) else {}
    given = fields.get("exc_info") or record.exc_info
    error = given[1] if isinstance(given, tuple) else given
    place: tuple[object, ...] = ()
    if isinstance(error, BaseException):
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = (type(error), trace and (trace.tb_frame.f_code, trace.tb_lineno))
    if record.pathname == conditions.__file__:  # all conditions are told from there, and each is news
        place = (str(fields.get("event")),)
    return (record.pathname, record.lineno, *place, *(str(fields[name]) for name in PARTS if name in fields))
