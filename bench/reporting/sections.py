"""What a run found: figures of servers by round, and the sections of the report that show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.reporting.statistics import Spread, ratio, spread


class Measurements:
    """The figures of a run: of each figure, by its key, what each server's rounds gave."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, list[float]]] = {}

    def add(self, figure: str, side: str, value: float) -> None:
        """Add what a round gave."""
        self.values.setdefault(figure, {}).setdefault(side, []).append(value)

    def spread(self, figure: str, side: str) -> Spread | None:
        """Return the median, the least and the most of a server's rounds; ``None``: it was not measured."""
        rounds = self.values.get(figure, {}).get(side)
        return spread(rounds) if rounds else None

    def ratio(self, figure: str, side: str, to: str) -> float | None:
        """Return how many times as much one server took as another; ``None``: not both were measured."""
        sides = self.values.get(figure, {})
        return ratio(sides.get(side, []), sides.get(to, []))


@dataclass(frozen=True)
class Figure:
    """A column of a table.

    Attributes:
        key: in the measurements.
        title: with its unit.
    """

    key: str
    title: str


@dataclass(frozen=True)
class Bars:
    """A plot of one figure: a bar for each server."""

    name: str
    title: str
    figure: str


@dataclass(frozen=True)
class Lines:
    """A plot of how a figure grows: a line for each server, both axes logarithmic.

    Attributes:
        points: what grew, and the figure's key there.
    """

    name: str
    title: str
    growing: str
    points: tuple[tuple[float, str], ...]


@dataclass
class Section:
    """A part of the report.

    Attributes:
        key: by which options choose the work.
        method: what was done.
        figures: the columns of its table.
        plots: below it.
        notes: what else is to be known, such as what failed.
        output: of another program, as it is.
    """

    key: str
    title: str
    method: str
    figures: Sequence[Figure] = ()
    plots: Sequence[Bars | Lines] = ()
    notes: list[str] = field(default_factory=list)
    output: str = ""
