"""Numbers for people."""

from __future__ import annotations

import math


def short(value: float) -> str:
    """Return a number with three digits that count, or whole if it has more."""
    if not math.isfinite(value):
        return "?"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    places = 1 if size >= 10 else 2 if size >= 1 else min(4, 2 - math.floor(math.log10(size)))
    text = f"{value:.{places}f}"
    return "0" if float(text) == 0 else text
