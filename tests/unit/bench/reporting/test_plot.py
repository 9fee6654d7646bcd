"""Plots are images that can be read on a light and on a dark page."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from bench.reporting import plot
from bench.reporting.statistics import Spread

SVG = "{http://www.w3.org/2000/svg}"


def parsed(drawn: str) -> ET.Element:
    return ET.fromstring(drawn)  # noqa: S314  # it is our own


def texts(drawn: str) -> list[str]:
    return [element.text or "" for element in parsed(drawn).iter(f"{SVG}text")]


def test_bars_are_as_long_as_their_medians() -> None:
    drawn = plot.bars("µs <b>", {"here, Socket.IO": Spread(10, 10, 10), "other": Spread(20, 15, 40)})
    ours, other = parsed(drawn).iter(f"{SVG}rect")
    assert float(other.attrib["width"]) == pytest.approx(2 * float(ours.attrib["width"]), abs=0.2)
    assert [ours.attrib["class"], other.attrib["class"]] == ["ours", "peer"]
    assert texts(drawn) == ["µs <b>", "here, Socket.IO", "10.0", "other", "20.0"]
    (whisker,) = parsed(drawn).iter(f"{SVG}line")
    end = float(other.attrib["x"]) + float(other.attrib["width"])
    assert float(whisker.attrib["x1"]) < end < float(whisker.attrib["x2"])


def test_lines_have_a_point_for_each_figure_and_a_legend() -> None:
    drawn = plot.lines("title", "connections", {"one": [(1, 10), (100, 1000)], "two": [(1, 20)]})
    root = parsed(drawn)
    (long, short) = (element.attrib["points"].split() for element in root.iter(f"{SVG}polyline"))
    assert (len(long), len(short)) == (2, 1)
    left, right = ([float(part) for part in point.split(",")] for point in long)
    assert left[0] < right[0]
    assert left[1] > right[1]  # upwards
    assert {"title", "connections", "one", "two"} <= set(texts(drawn))
    assert len(list(root.iter(f"{SVG}circle"))) == 3 + 2


@pytest.mark.parametrize("values", [{}, {"one": [(1.0, 0.0)]}])
def test_without_figures_that_is_said(values: dict[str, list[tuple[float, float]]]) -> None:
    assert "nothing was measured" in texts(plot.lines("title", "x", values))


def test_all_of_a_plot_is_within_it() -> None:
    line = [(1.0, 0.001), (100_000.0, 90_000.0)]
    root = parsed(plot.lines("title", "x", {f"server {n}": line for n in range(9)}))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for element in root.iter(f"{SVG}circle"):
        assert 0 < float(element.attrib["cx"]) < width
        assert 0 < float(element.attrib["cy"]) < height


def test_colours_follow_the_page() -> None:
    for drawn in (plot.bars("t", {"one": Spread(1, 1, 1)}), plot.lines("t", "x", {"one": [(1, 1)]})):
        assert "@media(prefers-color-scheme:dark)" in drawn
        assert 'fill="' not in drawn  # each colour is in the style
