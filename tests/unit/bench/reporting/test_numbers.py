"""Numbers for people."""

from __future__ import annotations

import math

import pytest

from bench.reporting.numbers import short


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.00001, "0"),
        (0.01234, "0.0123"),
        (0.5, "0.500"),
        (1.2345, "1.23"),
        (12.345, "12.3"),
        (123.45, "123"),
        (1234567.0, "1,234,567"),
        (-2.5, "-2.50"),
        (math.nan, "?"),
        (math.inf, "?"),
    ],
)
def test_three_digits_count(value: float, text: str) -> None:
    assert short(value) == text
