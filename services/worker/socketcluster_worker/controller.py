"""Runs the user's controller; whatever goes wrong is told with file and line."""

from __future__ import annotations

from pathlib import Path

from socketcluster_runtime import controllers
from socketcluster_worker.api.worker import Worker

MODULE_NAME = "controller"


async def run_controller(path: Path, worker: Worker) -> None:
    """Import the module at ``path`` and call its ``run(worker)``, which may be plain or async.

    Raises:
        ControllerError: the file does not exist, has no ``run``, or raised.
    """
    await controllers.run_controller(path, MODULE_NAME, "worker", worker)
