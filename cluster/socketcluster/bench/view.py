"""How a run goes, while it does: a live view on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from socketcluster.bench.generators import Generators
from socketcluster.bench.plan import Mode
from socketcluster.bench.summary import milliseconds, times
from socketcluster.bench.tally import Tally

REFRESH = 0.25
"""Seconds between two pictures."""
LINE_EVERY = 2.0
"""Seconds between two lines, where there is no terminal."""
_BARS = "▁▂▃▄▅▆▇█"
_HISTORY = 60
_OVER = 4
"""Pictures over which a rate is taken: generators say what they have counted no more often than they are made."""
_WHAT: dict[Mode, tuple[str, Callable[[Tally], int]]] = {
    Mode.ACK: ("answers", lambda tally: tally.answered),
    Mode.BROADCAST: ("deliveries", lambda tally: tally.delivered),
    Mode.IDLE: ("connections", lambda tally: tally.opened),
    Mode.STORM: ("served", lambda tally: tally.opened),
}


class View:
    """Shows a run; a context, for as long as it lasts.

    Args:
        run: what is shown.
        console: where.
        lines: show lines instead of a live view.
    """

    def __init__(self, run: Generators, console: Console, *, lines: bool) -> None:
        self._run = run
        self._console = console
        self._live = None if lines else Live(console=console, auto_refresh=False, transient=True)
        self._rates: deque[float] = deque(maxlen=_HISTORY)
        self._counts: deque[tuple[float, int]] = deque(maxlen=_OVER + 1)
        self._phase = ""
        self._began = self._now = asyncio.get_running_loop().time()
        self._showing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        self._showing = asyncio.create_task(self._show())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if self._showing is not None:
            self._showing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._showing
        if self._live is not None:
            self._live.stop()

    async def _show(self) -> None:
        loop = asyncio.get_running_loop()
        if self._live is None:
            await asyncio.sleep(LINE_EVERY)
        while True:
            tally = self._run.tally
            now = loop.time()
            if self._run.phase != self._phase:
                self._phase, self._began = self._run.phase, now
                self._rates.clear()
                self._counts.clear()
            self._now = now
            self._counts.append((now, _WHAT[self._run.plan.mode][1](tally)))
            (before, least), (after, most) = self._counts[0], self._counts[-1]
            if after > before:
                self._rates.append(max(0, most - least) / (after - before))
            if self._live is None:
                self._console.print(self.line(tally), highlight=False, soft_wrap=True)
                await asyncio.sleep(LINE_EVERY)
            else:
                self._live.update(self.picture(tally), refresh=True)
                await asyncio.sleep(REFRESH)

    def line(self, tally: Tally) -> str:
        """Return how it goes, in a line."""
        plan = self._run.plan
        if self._phase == "connecting":
            return f"connecting: {tally.opened:,} of {plan.connections:,}{_errors(tally)}"
        rate = self._rates[-1] if self._rates else 0.0
        parts = [f"{self._phase} {self._now - self._began:.0f} s: {tally.open:,} open"]
        if plan.mode is not Mode.IDLE:
            parts.append(f"{_WHAT[plan.mode][0]} {rate:,.0f}/s")
            parts.append(f"median {milliseconds(tally.latency.percentile(50))}")
            parts.append(f"p99 {milliseconds(tally.latency.percentile(99))}")
        if tally.lost:
            parts.append(f"{tally.lost:,} lost")
        return ", ".join(parts) + _errors(tally)

    def picture(self, tally: Tally) -> RenderableType:
        """Return the live view."""
        plan = self._run.plan
        head = Table.grid(padding=(0, 2))
        head.add_column(style="dim", min_width=12)
        head.add_column(min_width=40)
        head.add_column(justify="right", min_width=20)
        done = tally.opened if self._phase == "connecting" else min(self._now - self._began, plan.duration)
        total = plan.connections if self._phase == "connecting" else plan.duration
        counted = (
            f"{tally.opened:,} of {plan.connections:,}"
            if self._phase == "connecting"
            else f"{done:.0f} of {plan.duration:.0f} s"
        )
        head.add_row(self._phase, ProgressBar(total=total, completed=done, width=40), counted)
        lost = Text(f"{tally.lost:,} lost", style="red") if tally.lost else Text("")
        head.add_row("connections", f"{tally.open:,} open", lost)
        if self._phase != "connecting" and plan.mode is not Mode.IDLE:
            name = _WHAT[plan.mode][0]
            rate = self._rates[-1] if self._rates else 0.0
            head.add_row(f"{name}/s", Text(sparkline(self._rates, 40), style="cyan"), f"{rate:,.0f}")
        if self._phase != "connecting":
            busy = "red" if tally.busiest > 0.85 else ""
            lag = f"late by {milliseconds(tally.lag.percentile(99))}"
            head.add_row("generator", Text(f"{tally.busiest:.0%} of a core", style=busy), lag)
        parts: list[RenderableType] = [head, Text(""), times(self._run)]
        for kind, count in sorted(tally.errors.items(), key=lambda item: -item[1])[:3]:
            parts.append(Text(f"{count:,} times: {kind}", style="red"))
        title = f"[b]{plan.mode.value}[/b] · {plan.protocol.value} · {plan.url}"
        return Panel(Group(*parts), title=title, title_align="left", border_style="dim", padding=(1, 2), expand=False)


def sparkline(values: deque[float], width: int) -> str:
    """Return the last values as bars, the highest of them as the highest bar."""
    last = list(values)[-width:]
    most = max(last, default=0.0)
    return "".join(_BARS[round(value / most * (len(_BARS) - 1))] if most else _BARS[0] for value in last)


def _errors(tally: Tally) -> str:
    count = sum(tally.errors.values())
    return f", {count:,} errors" if count else ""
