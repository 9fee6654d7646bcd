"""The folders of a cluster: its data, which one cluster at a time may use, and a short-lived one for its sockets."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from socketcluster.errors import DataInUseError, OptionError
from socketcluster.plan import handoff_path, secret_path, store_path
from socketcluster.settings import ClusterSettings
from socketcluster_runtime.errors import SettingsError
from socketcluster_runtime.secrets.private_files import make_folder, make_private, private

RUN_DIR_PREFIX = "socketcluster-"

MAX_TEMP_DIR = 40
"""Characters of a folder for temporary files; with more, the path of a Unix socket in it may become too long (108)."""


@contextlib.contextmanager
def data_dir(settings: ClusterSettings) -> Iterator[TextIO]:
    """Make the data folder and the secret, and hold the application's lock file, in which the run folder is noted.

    Raises:
        DataInUseError: another cluster holds the lock.
        OptionError: the folder or the secret cannot be used.
    """
    path = settings.data_dir.absolute()
    try:
        make_folder(store_path(settings))
        lock_path = path / f"{settings.app_name}.lock"
        lock = open(lock_path, "a+", opener=private)  # noqa: SIM115  # closed below
        make_private(lock_path)
    except OSError as error:
        raise OptionError(f"the data folder cannot be used: {error}") from None
    with lock:  # the kernel frees it when the launcher dies, however it dies
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataInUseError(
                f"another cluster of {settings.app_name} uses {path}: choose another folder with --data-dir"
            ) from None
        try:
            settings.model_copy(update={"secret_file": secret_path(settings)}).shared_secret()
        except SettingsError as error:
            raise OptionError(str(error)) from None
        if settings.secret_file is None:  # the launcher's own, not one that somebody chose to share
            make_private(secret_path(settings))
        yield lock


@contextlib.contextmanager
def run_dir(lock: TextIO) -> Iterator[Path]:
    """Make a private folder for the cluster's sockets, with a short path; remove one that a killed launcher left."""
    lock.seek(0)
    left = Path(lock.read())
    if left.name.startswith(RUN_DIR_PREFIX) and left.is_dir() and left.stat().st_uid == os.getuid():
        shutil.rmtree(left, ignore_errors=True)
    parent = tempfile.gettempdir()
    path = Path(tempfile.mkdtemp(prefix=RUN_DIR_PREFIX, dir=parent if len(parent) <= MAX_TEMP_DIR else "/tmp"))  # noqa: S108  # mkdtemp makes it private
    lock.truncate(0)
    lock.write(str(path))
    lock.flush()
    try:
        handoff_path(path).mkdir(mode=0o700)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
