"""Medians of rounds, their spread, and ratios between servers that had their turns in the same rounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

QUANTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}


class Spread(NamedTuple):
    """What several rounds gave."""

    middle: float
    least: float
    most: float


def spread(values: Sequence[float]) -> Spread:
    """Return the median of some values, the least and the greatest.

    Raises:
        ValueError: there are none.
    """
    if not values:
        raise ValueError("nothing was measured")
    return Spread(median(values), min(values), max(values))


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the least of some ordered values that ``share`` of them do not exceed; not a number if there are none."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Return the median, the tail and the greatest of some values, by name."""
    ordered = sorted(values)
    found = {name: quantile(ordered, share) for name, share in QUANTILES.items()}
    return {**found, "max": ordered[-1] if ordered else math.nan}


def ratio(values: Sequence[float], others: Sequence[float]) -> float | None:
    """Return the median of the ratios of two servers' rounds, as each pair had the same machine; ``None``: no pair."""
    pairs = [value / other for value, other in zip(values, others, strict=False) if other > 0]
    return median(pairs) if pairs else None
