"""Medians, tails and ratios."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.reporting.statistics import Spread, quantile, quantiles, ratio, spread


def test_a_spread_has_the_median_and_the_ends() -> None:
    assert spread([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    assert spread([1.0, 2.0]).middle == 1.5


def test_nothing_has_no_spread() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        spread([])


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1), (0.5, 500), (0.99, 990), (0.999, 999), (0.9991, 1000), (1.0, 1000)]
)
def test_a_quantile_is_a_value_that_so_many_do_not_exceed(share: float, expected: int) -> None:
    assert quantile(range(1, 1001), share) == expected


def test_quantiles_have_names() -> None:
    assert quantiles([5.0, 1.0]) == {"p50": 1.0, "p99": 5.0, "p99.9": 5.0, "max": 5.0}
    assert all(math.isnan(value) for value in quantiles([]).values())


@given(st.lists(st.floats(0, 1e6), min_size=1), st.sampled_from([0.5, 0.99, 0.999]))
def test_a_quantile_is_reached_by_its_share(values: list[float], share: float) -> None:
    found = quantile(sorted(values), share)
    assert sum(value <= found for value in values) >= share * len(values)
    assert sum(value < found for value in values) < share * len(values)


def test_a_ratio_is_that_of_rounds_not_of_medians() -> None:
    assert ratio([10.0, 1.0, 30.0], [10.0, 2.0, 10.0]) == 1.0  # 1, 0.5 and 3
    assert ratio([1.0], [0.0]) is None
    assert ratio([], [1.0]) is None
