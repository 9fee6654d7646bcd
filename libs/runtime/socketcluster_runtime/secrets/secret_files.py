"""Secrets that are read from files, because arguments show in the list of processes."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import SecretStr

from socketcluster_runtime.errors import SettingsError
from socketcluster_runtime.logs.logging import get_logger

log = get_logger(__name__)

MAX_SECRET_BYTES = 64 * 1024
"""The size of the largest file that is taken for a secret's."""
READ_BY_OTHERS = 0o004


def read_secret(option: str, path: Path) -> str:
    """Return the text of a file without the line feed at its end; warn if every user of the machine may read it.

    Args:
        option: what names the file, for the errors.
        path: the file.

    Raises:
        SettingsError: the file cannot be read, is empty, too large, or no text; the error names it, and what to do.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SECRET_BYTES + 1)
            mode = os.fstat(file.fileno()).st_mode
    except OSError as error:
        raise SettingsError(
            f"{option}: {path} cannot be read: {error.strerror}; give the name of a file that has the secret and "
            "nothing else, and that this process may read"
        ) from None
    try:
        secret = content.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise SettingsError(
            f"{option}: {path} is no text in UTF-8; write the secret into it, and nothing else"
        ) from None
    if not secret.strip():
        raise SettingsError(f"{option}: {path} is empty; write the secret into it, and nothing else")
    if len(content) > MAX_SECRET_BYTES:
        raise SettingsError(f"{option}: {path} is too large for a secret; write the secret into it, and nothing else")
    if mode & READ_BY_OTHERS:
        log.warning("every user of this machine can read a secret: chmod o-rwx", option=option, path=str(path))
    return secret


def secret_of(option: str, value: SecretStr | None, path: Path | None) -> str | None:
    """Return a secret that is given as ``option`` or in the file that ``option_file`` names; ``None``: there is none.

    Raises:
        SettingsError: the file cannot be used.
    """
    if path is not None:
        return read_secret(f"{option}_file", path)
    return None if value is None else value.get_secret_value()


def check_one_form(option: str, value: SecretStr | None, path: Path | None) -> None:
    """Check that a secret is not given twice.

    Raises:
        ValueError: it is, as itself and as a file.
    """
    if value is not None and path is not None:
        raise ValueError(f"{option} and {option}_file are both set: give one of them")
