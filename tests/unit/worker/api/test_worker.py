"""``worker.every``: what cannot be called again and again is told when it is added."""

from __future__ import annotations

from typing import Any

import pytest
from support.worker.running import RunningWorker


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan")])
async def test_a_time_is_positive(worker: RunningWorker, seconds: float) -> None:
    with pytest.raises(ValueError, match="a positive time"):
        worker.worker.every(seconds)


async def test_a_time_comes_first(worker: RunningWorker) -> None:
    with pytest.raises(TypeError, match=r"@worker\.every\(1\.0\)"):
        worker.worker.every(print)  # type: ignore[arg-type]


async def test_what_is_repeated_wants_no_arguments(worker: RunningWorker) -> None:
    wrong: list[Any] = ["no function", lambda socket: None]
    for one in wrong:
        with pytest.raises(TypeError, match=r"is a function, plain or async|is called without arguments"):
            worker.worker.every(1.0)(one)
