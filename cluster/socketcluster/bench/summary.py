"""What is said of a run when it is over: for people, and as JSON."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from socketcluster.bench.advice import advice_of
from socketcluster.bench.generators import Generators
from socketcluster.bench.histogram import Histogram
from socketcluster.bench.plan import Mode

BUSY = 0.85
"""The share of a core from which a generator's own work is part of what it measures."""
LATE = 20_000_000
"""Nanoseconds by which its timers may be late, one of a hundred of them, before that is so."""
_COLUMNS = (("median", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9), ("max", 100.0))
LATENCY_OF = {
    Mode.ACK: "answer",
    Mode.BROADCAST: "delivery",
    Mode.IDLE: "",
    Mode.STORM: "served again",
}


def report(run: Generators) -> dict[str, Any]:
    """Return what came of a run, as ``--json`` prints it; times are milliseconds, but ``seconds``."""
    tally, plan = run.tally, run.plan
    seconds = tally.seconds or None
    made: dict[str, Any] = {
        "url": plan.url,
        "protocol": plan.protocol.value,
        "mode": plan.mode.value,
        "connections": {"wanted": plan.connections, "opened": tally.opened, "open": tally.open, "lost": tally.lost},
        "connect_ms": tally.connecting.summary(),
        "seconds": round(tally.seconds, 3),
        "errors": dict(sorted(tally.errors.items(), key=lambda item: -item[1])),
        "generator": {
            "processes": plan.processes,
            "cpu": round(tally.busiest, 3),
            "lag_ms": tally.lag.summary(),
            "bottleneck": bool(too_busy(run)),
        },
        "ok": not problems(run),
    }
    if plan.mode in (Mode.ACK, Mode.BROADCAST):
        made["messages"] = {
            "sent": tally.sent,
            "answered": tally.answered,
            "unanswered": tally.unanswered,
            "rate": round(tally.answered / seconds, 1) if seconds else 0.0,
        }
    if plan.mode is Mode.BROADCAST:
        made["deliveries"] = {
            "members": tally.joined,
            "expected": run.expected,
            "delivered": tally.delivered,
            "lost": max(0, run.expected - tally.delivered),
            "rate": round(tally.delivered / seconds, 1) if seconds else 0.0,
        }
    if plan.mode is not Mode.IDLE:
        made["latency_ms"] = tally.latency.summary()
    return made


def problems(run: Generators) -> list[str]:
    """Return why the run was no success; the command's exit status follows from it."""
    tally, plan = run.tally, run.plan
    found = []
    if run.fatal and tally.opened:
        found.append(f"it could not begin: {run.fatal}")
    if not tally.opened:
        found.append("nothing could connect")
    elif tally.opened < plan.connections:
        what = "were not served again" if plan.mode is Mode.STORM and run.phase == "done" else "could not connect"
        found.append(f"{plan.connections - tally.opened} of {plan.connections} {what}")
    if tally.lost:
        found.append(f"{tally.lost} connections were lost")
    if tally.unanswered:
        found.append(f"{tally.unanswered} messages had no answer, or an error for one")
    if (missing := run.expected - tally.delivered) > 0:
        found.append(f"{missing} of {run.expected} deliveries were lost")
    return found


def too_busy(run: Generators) -> str:
    """Return why the numbers may be the generator's more than the server's; empty: they are not."""
    tally = run.tally
    late = tally.lag.percentile(99)
    if tally.busiest <= BUSY and late <= LATE:
        return ""
    if tally.busiest > BUSY:
        return (
            f"a process of this load generator used {tally.busiest:.0%} of a core: what was measured is partly its own"
            " time. Use more --processes, or a lower --rate"
        )
    return (
        f"this machine was too busy for its load generator, whose timers were {milliseconds(late)} late (p99): what was"
        " measured is partly that. Use a machine of its own, or a lower --rate"
    )


def shown(run: Generators) -> RenderableType:
    """Return what is printed at the end."""
    tally, plan = run.tally, run.plan
    parts: list[RenderableType] = [times(run), Text("")] if tally.opened else []
    lines = Table.grid(padding=(0, 2))
    lines.add_row(
        "connections", f"{tally.opened:,} of {plan.connections:,}" + (f", {tally.lost:,} lost" * bool(tally.lost))
    )
    if plan.mode in (Mode.ACK, Mode.BROADCAST):
        rate = f"{tally.answered / tally.seconds:,.0f} a second" if tally.seconds else ""
        without = f", {tally.unanswered:,} without" if tally.unanswered else ""
        lines.add_row("messages", f"{tally.sent:,} sent, {tally.answered:,} answered{without}", rate)
    if plan.mode is Mode.BROADCAST:
        rate = f"{tally.delivered / tally.seconds:,.0f} a second" if tally.seconds else ""
        lines.add_row("deliveries", f"{tally.delivered:,} of {run.expected:,} to {tally.joined:,} members", rate)
    if tally.seconds:
        lag = milliseconds(tally.lag.percentile(99))
        lines.add_row("generator", f"{tally.busiest:.0%} of a core, timers late by {lag} (p99)")
    parts.append(lines)
    for kind, count in sorted(tally.errors.items(), key=lambda item: -item[1]):
        parts.append(Text(f"\n{count:,} times: {kind}", style="red"))
        if advice := advice_of(kind, plan):
            parts.append(Padding(Text(advice), (0, 0, 0, 2)))
    if run.fatal and run.fatal not in tally.errors:
        parts.append(Text(f"\n{run.fatal}", style="red"))
        if advice := advice_of(run.fatal, plan):
            parts.append(Padding(Text(advice), (0, 0, 0, 2)))
    if warning := too_busy(run):
        parts.append(Text(f"\n{warning}", style="yellow"))
    found = problems(run)
    parts.append(Text("\n" + ("; ".join(found) if found else "all well"), style="bold red" if found else "bold green"))
    return Group(*parts)


def times(run: Generators) -> RenderableType:
    """Return the table of how long things took."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("time", min_width=12)
    for name, _ in _COLUMNS:
        table.add_column(name, justify="right", min_width=8)
    table.add_column("of", justify="right", min_width=8)
    rows: list[tuple[str, Histogram]] = [("connecting", run.tally.connecting)]
    if LATENCY_OF[run.plan.mode]:
        rows.append((LATENCY_OF[run.plan.mode], run.tally.latency))
    for name, histogram in rows:
        cells = (
            [milliseconds(histogram.percentile(percent)) for _, percent in _COLUMNS] if histogram.count else ["-"] * 5
        )
        table.add_row(name, *cells, f"{histogram.count:,}")
    return table


def milliseconds(nanoseconds: float) -> str:
    """Return a time as people read it."""
    value = nanoseconds / 1e6
    if value >= 1000:
        return f"{value / 1000:.2f} s"
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{digits}f} ms"
