"""What is said of checkpoints that fail, and when they are tried again."""

from __future__ import annotations

from structlog.testing import capture_logs

from socketcluster_store.engines.lmdb.checkpoints import Checkpoints
from socketcluster_store.errors import EngineError


async def test_a_full_disk_is_one_condition_whatever_number_of_partitions_meets_it() -> None:
    checkpoints = Checkpoints()
    failure = EngineError("the disk is full")
    with capture_logs() as logs:
        pauses = [checkpoints.failed(3, failure, None) for _ in range(5)]
        for number in range(64):
            checkpoints.failed(number, failure, None)
        for number in range(64):
            checkpoints.over(number)
        checkpoints.over(3)
    assert pauses == [1, 2, 4, 5, 5]
    began, ended = logs
    assert began["event"].startswith("checkpoints fail")
    assert (began["log_level"], began["error"], began["partitions"]) == ("error", "the disk is full", [3])
    assert (ended["event"], ended["times"]) == ("checkpoints succeed again", 69)
    assert checkpoints.failed(3, failure, None) == 1
    checkpoints.over(3)
