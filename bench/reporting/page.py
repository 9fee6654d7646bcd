"""The report: a page of Markdown with its plots beside it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.reporting import plot
from bench.reporting.numbers import short
from bench.reporting.sections import Bars, Lines, Measurements, Section
from bench.reporting.targets import TARGETS

BUSY = 0.9
"""Share of a core from which on the load generator may have been what was slow."""


@dataclass(frozen=True)
class Run:
    """What the page says of the run.

    Attributes:
        date: when.
        took: minutes.
        options: as people write them.
        machine: by name.
        versions: by name.
        configurations: of each server.
        missing: of each server that took no part, why.
        busy: of each work and server, the greatest share of a core that a process of the load generator used.
        late: the same, how late its timers were (99th percentile), in seconds.
    """

    date: str
    took: float
    options: str
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    configurations: Mapping[str, str]
    missing: Mapping[str, str]
    busy: Mapping[str, Mapping[str, float]]
    late: Mapping[str, Mapping[str, float]]


def write(path: Path, run: Run, sections: Sequence[Section], measurements: Measurements) -> None:
    """Write the page, and its plots into ``plots/`` beside it; plots of an earlier run go."""
    plots = path.with_name("plots")
    shutil.rmtree(plots, ignore_errors=True)
    plots.mkdir(parents=True)
    parts = [_head(run), _targets(measurements)]
    for section in sections:
        parts.append(_section(section, measurements))
        for one in section.plots:
            drawn = _plot(one, measurements)
            if drawn:
                (plots / f"{one.name}.svg").write_text(drawn)
                parts.append(f"![{one.title}](plots/{one.name}.svg)")
    parts.append(_generator(run, sections))
    path.write_text("\n\n".join(part for part in parts if part) + "\n")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def _head(run: Run) -> str:
    facts = {"date": f"{run.date}, {run.took:.0f} minutes", "options": run.options or "none"} | dict(run.machine)
    missing = "\n".join(f"- **Not measured: {name}**: {why}" for name, why in run.missing.items())
    servers = [[name, text] for name, text in run.configurations.items()]
    return "\n\n".join(
        part
        for part in (
            "# This server and its peers, measured",
            "Written by `make bench`; [how to read it](README.md). Each figure is the median of rounds in which the "
            "servers had their turns one after the other, with the least and the most in brackets. CPU is that of "
            "all processes of a server, as the kernel counts it. Compare within this page only.",
            missing,
            _table(("run", ""), [[name, text] for name, text in facts.items()]),
            _table(("versions", ""), [[name, text] for name, text in run.versions.items()]),
            _table(("server", "configuration; nowhere compression, everywhere the same payloads"), servers),
        )
        if part
    )


def _targets(measurements: Measurements) -> str:
    rows = []
    for target in TARGETS:
        value = target.measured(measurements)
        if value is not None:
            mark = "✓" if value <= target.wanted else "missed"
            rows.append([target.text, f"≤ {short(target.wanted)}", short(value), mark])
    return "## Targets\n\n" + _table(("target", "wanted", "measured", ""), rows) if rows else ""


def _section(section: Section, measurements: Measurements) -> str:
    shown = [figure for figure in section.figures if measurements.values.get(figure.key)]
    names: dict[str, None] = {}
    for figure in shown:
        names |= dict.fromkeys(measurements.values[figure.key])
    rows = [[name, *(_cell(measurements, figure.key, name) for figure in shown)] for name in names]
    parts = [f"## {section.title}", section.method]
    if rows:
        parts.append(_table(("", *(figure.title for figure in shown)), rows))
    if section.output:
        parts.append(f"```text\n{section.output.rstrip()}\n```")
    parts += ["\n".join(f"- {note}" for note in section.notes)] if section.notes else []
    return "\n\n".join(parts)


def _cell(measurements: Measurements, figure: str, side: str) -> str:
    spread = measurements.spread(figure, side)
    if spread is None:
        return "-"
    if len(measurements.values[figure][side]) == 1:
        return short(spread.middle)
    return f"{short(spread.middle)} ({short(spread.least)} to {short(spread.most)})"


def _plot(one: Bars | Lines, measurements: Measurements) -> str:
    if isinstance(one, Bars):
        sides = measurements.values.get(one.figure, {})
        found = {side: measurements.spread(one.figure, side) for side in sides}
        known = {side: spread for side, spread in found.items() if spread is not None}
        return plot.bars(one.title, known) if known else ""
    grown: dict[str, list[tuple[float, float]]] = {}
    for size, figure in one.points:
        for side in measurements.values.get(figure, {}):
            spread = measurements.spread(figure, side)
            if spread is not None:
                grown.setdefault(side, []).append((size, spread.middle))
    return plot.lines(one.title, one.growing, grown) if grown else ""


def _generator(run: Run, sections: Sequence[Section]) -> str:
    """Return how it is known that the load generator was not what was slow."""
    rows = []
    for section in sections:
        busy, late = run.busy.get(section.key), run.late.get(section.key)
        if busy and late:
            most, latest = max(busy, key=busy.__getitem__), max(late, key=late.__getitem__)
            rows.append(
                [
                    section.title,
                    f"{busy[most]:.0%} ({most})" + (" (!)" if busy[most] > BUSY else ""),
                    f"{short(late[latest] * 1e3)} ({latest})",
                ]
            )
    if not rows:
        return ""
    text = (
        "Where only CPU an event counts, the generator may be as slow as it likes: it is not in the figure, and a "
        "server that waits for it uses no CPU meanwhile (though one that is always busy takes more events at a "
        "time). Where time counts (latency, storms, rates), it must have been idle in between: its share of a core, "
        f"at most of all servers' turns, and how late its timers were (99th percentile; 1 ms is their resolution). "
        f"*(!)*: over {BUSY:.0%} of a core, so its rates a second are the generator's."
    )
    return "## Is the load generator what is slow?\n\n" + text + "\n\n" + _table(("work", "CPU", "late, ms"), rows)
