"""How a controller is loaded, and what is told of one that fails."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import pytest
from support.worker.running import StartWorker

from socketcluster_runtime.errors import ControllerError
from socketcluster_worker.api.worker import Worker
from socketcluster_worker.controller import run_controller

NOBODY = cast(Worker, object())


pytestmark = pytest.mark.usefixtures("own_modules")


@pytest.mark.parametrize(
    ("source", "line", "text"),
    [
        ("x = 1\n", None, "has no function run"),
        ("run = 5\n", None, "has no function run"),
        ("def run(worker)\n", 1, "SyntaxError"),
        ("import nothing_of_that_name\n", 1, "ModuleNotFoundError"),
        ("import json\n\njson.loads('{')\n", 3, "JSONDecodeError"),
        ("def run(worker):\n    inner()\ndef inner():\n    raise ValueError('no')\n", 4, "ValueError: no"),
        ("async def run(worker):\n    raise ValueError('async')\n", 2, "ValueError: async"),
    ],
)
async def test_a_controller_that_fails_is_told_with_file_and_line(
    tmp_path: Path, source: str, line: int | None, text: str
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(source)
    with pytest.raises(ControllerError) as failed:
        await run_controller(path, NOBODY)
    assert text in str(failed.value)
    assert str(failed.value).startswith(f"{path}:{line}: " if line else f"{path}: ")


async def test_a_neighbour_can_be_imported_and_its_line_is_told(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_mine.py").write_text("def fail():\n    raise ValueError('there')\n")
    path = tmp_path / "mine.py"
    path.write_text("from neighbour_of_mine import fail\ndef run(worker):\n    fail()\n")
    with pytest.raises(ControllerError, match=r"neighbour_of_mine\.py:2: ValueError: there"):
        await run_controller(path, NOBODY)


@pytest.mark.parametrize(("name", "text"), [("missing.py", "no such controller"), ("mine.txt", "ends in .py")])
async def test_what_is_no_module_is_no_controller(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(ControllerError, match=text):
        await run_controller(tmp_path / name, NOBODY)


async def test_a_worker_stops_though_its_controller_waits(start_worker: StartWorker) -> None:
    begun: asyncio.Queue[Worker] = asyncio.Queue()

    async def run(worker: Worker) -> None:
        begun.put_nowait(worker)
        await asyncio.Event().wait()

    starting = asyncio.ensure_future(start_worker(run))
    await begun.get()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting  # the fixture stops the worker, which would hang if it waited for run()
