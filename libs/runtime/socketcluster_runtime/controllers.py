"""Loads a user's controller; whatever goes wrong is told with file and line."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from socketcluster_runtime.errors import ControllerError


def load_run(path: Path, name: str, signature: str) -> Callable[[Any], Any]:
    """Import the file at ``path`` as the module ``name``, and return its function ``run``.

    Args:
        path: a Python file; its neighbours are importable for it.
        name: of the module.
        signature: of the function, for the error that says that there is none.

    Raises:
        ControllerError: the file does not exist, has no ``run``, or raised.
    """
    run: Callable[[Any], Any] | None = getattr(_load(path.resolve(), name), "run", None)
    if not callable(run):
        raise ControllerError(f"{path}: the controller has no function {signature}")
    return run


async def run_controller(path: Path, name: str, argument: str, value: object) -> None:
    """Import the file at ``path`` and call its ``run(value)``, which may be plain or async.

    Args:
        path: a Python file.
        name: of the module that it becomes.
        argument: what the function calls its argument, for the error that says that there is no function.
        value: the argument.

    Raises:
        ControllerError: the file does not exist, has no ``run``, or raised.
    """
    run = load_run(path, name, f"run({argument})")
    try:
        result = run(value)
        if inspect.isawaitable(result):
            await result
    except Exception as error:
        raise ControllerError(where(path, error)) from error


def _load(path: Path, name: str) -> ModuleType:
    if not path.is_file():
        raise ControllerError(f"{path}: there is no such controller")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ControllerError(f"{path}: a controller is a Python file, its name ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))  # its neighbours are importable, as they are for a script
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ControllerError(where(path, error)) from error
    return module


def where(path: Path, error: BaseException) -> str:
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
    place = f"{file}:{line}" if line else file
    return f"{place}: {type(error).__name__}: {text}"
