"""The page of the report."""

from __future__ import annotations

from pathlib import Path

from bench.peers.side import SOCKETIO, SOCKETIO_NODE
from bench.reporting import page
from bench.reporting.sections import Bars, Figure, Lines, Measurements, Section

RUN = page.Run(
    "2026-11-30 08:00 UTC",
    41.6,
    "--rounds 2",
    {"processor": "2 of something"},
    {"Node": "v20"},
    {SOCKETIO: "as it is"},
    {"Channels": "there is no redis-server here"},
    {"acknowledge": {SOCKETIO: 0.5, SOCKETIO_NODE: 0.95}},
    {"acknowledge": {SOCKETIO: 0.002, SOCKETIO_NODE: 0.001}},
)


def write(folder: Path) -> str:
    measurements = Measurements()
    for value in (20.0, 22.0, 21.0):
        measurements.add("acknowledge/cpu", SOCKETIO, value)
        measurements.add("acknowledge/cpu", SOCKETIO_NODE, value * 2)
    measurements.add("acknowledge/p99", SOCKETIO, 1.5)
    section = Section(
        "acknowledge",
        "Acknowledged event",
        "How it was done.",
        (Figure("acknowledge/cpu", "CPU, µs"), Figure("acknowledge/p99", "p99, ms"), Figure("never", "not measured")),
        (Bars("cpu", "CPU", "acknowledge/cpu"), Lines("grown", "Growth", "n", ((1, "never"),))),
        ["**python-socketio failed:** it | ended"],
        "what a program prints\n",
    )
    path = folder / "report.md"
    page.write(path, RUN, [section], measurements)
    return path.read_text()


def test_the_page_has_the_medians_with_their_spread(tmp_path: Path) -> None:
    text = write(tmp_path)
    assert "|  | CPU, µs | p99, ms |" in text  # what nobody has is no column
    assert f"| {SOCKETIO} | 21.0 (20.0 to 22.0) | 1.50 |" in text
    assert f"| {SOCKETIO_NODE} | 42.0 (40.0 to 44.0) | - |" in text
    assert "- **python-socketio failed:** it | ended" in text
    assert "```text\nwhat a program prints\n```" in text


def test_the_page_says_what_it_was_made_on_and_what_is_missing(tmp_path: Path) -> None:
    text = write(tmp_path)
    assert "| date | 2026-11-30 08:00 UTC, 42 minutes |" in text
    assert "| options | --rounds 2 |" in text
    assert "- **Not measured: Channels**: there is no redis-server here" in text
    for cells in ("processor | 2 of something", "Node | v20", f"{SOCKETIO} | as it is"):
        assert f"| {cells} |" in text


def test_the_page_has_the_targets_that_were_measured(tmp_path: Path) -> None:
    text = write(tmp_path)
    assert "| acknowledged event: Socket.IO here to Node's | ≤ 0.350 | 0.500 | missed |" in text
    assert text.count("missed |") == 1


def test_plots_of_an_earlier_run_go(tmp_path: Path) -> None:
    old = tmp_path / "plots" / "old.svg"
    old.parent.mkdir()
    old.touch()
    text = write(tmp_path)
    assert [path.name for path in old.parent.iterdir()] == ["cpu.svg"]
    assert "![CPU](plots/cpu.svg)" in text
    assert "grown.svg" not in text


def test_the_page_says_how_the_load_generator_was(tmp_path: Path) -> None:
    assert f"| Acknowledged event | 95% ({SOCKETIO_NODE}) (!) | 2.00 ({SOCKETIO}) |" in write(tmp_path)
