"""Counts of times in buckets."""

from __future__ import annotations

import random

import pytest

from socketcluster.bench.histogram import Histogram


def of(*values: int) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


def test_percentiles_are_right_to_half_a_percent() -> None:
    numbers = random.Random(1)
    values = sorted(round(numbers.lognormvariate(14, 2)) for _ in range(10_000))
    histogram = of(*values)
    for percent in (0.01, 1, 50, 90, 99, 99.9):
        right = values[max(0, round(len(values) * percent / 100) - 1)]
        assert histogram.percentile(percent) == pytest.approx(right, rel=0.005)
    assert histogram.percentile(100) == values[-1] == histogram.most
    assert histogram.least == values[0]
    assert len(histogram.counts) < 4000


def test_small_values_are_exact_and_none_are_negative() -> None:
    histogram = of(*range(256), -5)
    assert (histogram.percentile(100), histogram.least, histogram.count) == (255, 0, 257)
    assert of(7).percentile(50) == 7


def test_what_is_merged_is_as_if_it_had_been_counted_in_one() -> None:
    one, two = of(5, 1_000_000), of(3, 77_777_777)
    one.merge(Histogram())
    one.merge(two)
    assert one == of(5, 1_000_000, 3, 77_777_777)
    empty = Histogram()
    empty.merge(two)
    assert empty == two


def test_a_summary_is_in_milliseconds() -> None:
    assert Histogram().summary() == {"count": 0}
    assert Histogram().percentile(50) == 0
    summary = of(*[2_000_000] * 99, 9_000_000).summary()
    assert (summary["count"], summary["mean"], summary["max"]) == (100, 2.07, 9.0)
    assert summary["median"] == summary["p99"] == pytest.approx(2.0, rel=0.005)
