"""What a run found."""

from __future__ import annotations

from bench.reporting.sections import Measurements


def test_rounds_are_kept_by_figure_and_server() -> None:
    found = Measurements()
    for value in (1.0, 3.0, 2.0):
        found.add("cpu", "one", value)
        found.add("cpu", "other", value * 2)
    spread = found.spread("cpu", "one")
    assert spread is not None
    assert spread.middle == 2.0
    assert found.ratio("cpu", "one", to="other") == 0.5


def test_what_was_not_measured_is_none() -> None:
    found = Measurements()
    found.add("cpu", "one", 1.0)
    assert found.spread("cpu", "other") is None
    assert found.spread("rate", "one") is None
    assert found.ratio("cpu", "one", to="other") is None
