"""Files and folders that only the user of the cluster's processes may read."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

FILE_MODE = 0o600
FOLDER_MODE = 0o700


def make_folder(path: Path) -> None:
    """Make a private folder; those above it that are missing become private too, those that are there stay as they are.

    Raises:
        OSError: it cannot be made.
    """
    missing = []
    for folder in (path, *path.parents):
        if folder.exists():
            break
        missing.append(folder)
    for folder in reversed(missing):
        folder.mkdir(FOLDER_MODE, exist_ok=True)
    make_private(path, FOLDER_MODE)


def make_private(path: Path, mode: int = FILE_MODE) -> None:
    """Take from everybody but its owner what a file or folder from before, or of a library, allows them.

    Where the owner is somebody else (a volume that a group may write to) it stays as it is: its own folder decides.

    Raises:
        OSError: it is not there.
    """
    if path.stat().st_mode & 0o077:
        with contextlib.suppress(PermissionError):
            path.chmod(mode)


def private(path: str, flags: int) -> int:
    """Open a file that is private if this makes it: an ``opener`` for ``open``."""
    return os.open(path, flags, FILE_MODE)
