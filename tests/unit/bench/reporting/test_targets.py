"""What is wanted, found in what was measured."""

from __future__ import annotations

import pytest

from bench.peers.side import SOCKETIO, SOCKETIO_NODE
from bench.reporting.sections import Measurements
from bench.reporting.targets import TARGETS


def measured(text: str, figures: dict[str, dict[str, float]]) -> float | None:
    found = Measurements()
    for figure, sides in figures.items():
        for side, value in sides.items():
            found.add(figure, side, value)
    (target,) = (target for target in TARGETS if target.text == text)
    return target.measured(found)


@pytest.mark.parametrize(
    ("text", "figures", "value"),
    [
        (
            "acknowledged event: Socket.IO here to Node's",
            {"acknowledge/cpu": {SOCKETIO: 20.0, SOCKETIO_NODE: 50.0}},
            0.4,
        ),
        (
            f"acknowledged event: growth from 200 to 8,000 connections, {SOCKETIO}",
            {"growth-connections/200": {SOCKETIO: 20.0}, "growth-connections/8000": {SOCKETIO: 30.0}},
            1.5,
        ),
        (f"a broadcast to 10 on two workers, all processes, ms: {SOCKETIO}", {"spanning/10": {SOCKETIO: 25.0}}, 0.25),
        (
            f"idle connection, worker and balancer together, KB: {SOCKETIO}",
            {"idle/worker": {SOCKETIO: 5.0}, "idle/balancer": {SOCKETIO: 0.5}},
            5.5,
        ),
        ("an idle cluster's CPU, % of a core", {"resting/all": {SOCKETIO: 0.3}}, 0.3),
    ],
)
def test_a_target_is_measured(text: str, figures: dict[str, dict[str, float]], value: float) -> None:
    assert measured(text, figures) == pytest.approx(value)
    figures.popitem()
    assert measured(text, figures) is None


def test_each_target_has_a_text_of_its_own() -> None:
    assert len({target.text for target in TARGETS}) == len(TARGETS)
    assert all(target.measured(Measurements()) is None for target in TARGETS)
