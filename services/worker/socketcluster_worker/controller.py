"""Loads the user's controller and runs it; whatever goes wrong is told with file and line."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from socketcluster_worker.api.worker import Worker
from socketcluster_worker.errors import ControllerError

MODULE_NAME = "controller"


async def run_controller(path: Path, worker: Worker) -> None:
    """Import the module at ``path`` and call its ``run(worker)``, which may be plain or async.

    Raises:
        ControllerError: the file does not exist, has no ``run``, or raised.
    """
    run = _load_run(path)
    try:
        result = run(worker)
        if inspect.isawaitable(result):
            await result
    except Exception as error:
        raise ControllerError(_where(path, error)) from error


def _load_run(path: Path) -> Callable[[Worker], Any]:
    module = _load(path.resolve())
    run: Callable[[Worker], Any] | None = getattr(module, "run", None)
    if not callable(run):
        raise ControllerError(f"{path}: the controller has no function run(worker)")
    return run


def _load(path: Path) -> ModuleType:
    if not path.is_file():
        raise ControllerError(f"{path}: there is no such controller")
    spec = importlib.util.spec_from_file_location(MODULE_NAME, path)
    if spec is None or spec.loader is None:
        raise ControllerError(f"{path}: a controller is a Python file, its name ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE_NAME] = module
    sys.path.insert(0, str(path.parent))  # its neighbours are importable, as they are for a script
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ControllerError(_where(path, error)) from error
    return module


def _where(path: Path, error: Exception) -> str:
    """Return ``file:line: Error: text``, for the innermost line in the controller's own folder."""
    path = path.resolve()
    file, line = str(path), 0
    if isinstance(error, SyntaxError):
        file, line = error.filename or file, error.lineno or 0
    else:
        for frame in traceback.extract_tb(error.__traceback__):
            if Path(frame.filename).is_relative_to(path.parent):
                file, line = frame.filename, frame.lineno or 0
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{file}:{line}: {type(error).__name__}: {text}"
