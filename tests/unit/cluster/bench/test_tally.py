"""What generators count, together."""

from __future__ import annotations

import msgspec

from socketcluster.bench.tally import Snapshot, Tally, added


def test_tallies_are_added_up_and_the_busiest_counts() -> None:
    one, two = Tally(opened=3, open=2, lost=1, busiest=0.5, seconds=9.0), Tally(opened=4, busiest=0.25, seconds=10.0)
    one.fail("reset")
    two.fail("reset")
    two.fail("late")
    one.latency.record(5)
    two.latency.record(7)
    total = added([one, two])
    assert (total.opened, total.open, total.lost, total.busiest, total.seconds) == (7, 2, 1, 0.5, 10.0)
    assert total.errors == {"reset": 2, "late": 1}
    assert (total.latency.count, total.latency.most) == (2, 7)
    assert one.errors == {"reset": 1}  # none is changed by that


def test_a_snapshot_travels_as_json() -> None:
    tally = Tally(opened=1)
    tally.connecting.record(123_456_789)
    snapshot = Snapshot("running", tally, "no answer in time")
    assert msgspec.json.decode(msgspec.json.encode(snapshot), type=Snapshot) == snapshot
