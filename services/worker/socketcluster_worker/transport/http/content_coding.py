"""Which content codings a client takes (RFC 9110, section 12.5.3)."""

from __future__ import annotations

import re

_WEIGHT = re.compile(r"[01](?:\.[0-9]{0,3})?")


def accepts_gzip(header: str) -> bool:
    """Does an ``Accept-Encoding`` header ask for gzip, and not rather for no coding at all?"""
    weights: dict[str, float] = {}
    for part in header.lower().split(","):
        coding, *parameters = (piece.strip() for piece in part.split(";"))
        weights.setdefault("gzip" if coding == "x-gzip" else coding, _weight(parameters))
    gzip = weights.get("gzip", weights.get("*", 0))
    return gzip > 0 and gzip >= weights.get("identity", 0)


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            value = value.strip()
            return min(float(value), 1) if _WEIGHT.fullmatch(value) else 0
    return 1
