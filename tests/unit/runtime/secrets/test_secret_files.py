"""Secrets in files: what is wrong with one is named, and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from socketcluster_runtime.errors import SettingsError
from socketcluster_runtime.secrets.secret_files import MAX_SECRET_BYTES, check_one_form, read_secret, secret_of


def make(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("content", "secret"),
    [(b"open sesame\n", "open sesame"), (b" spaces \r\n", " spaces "), ("größe".encode(), "größe")],
)
def test_a_file_has_the_secret_and_the_end_of_its_line(tmp_path: Path, content: bytes, secret: str) -> None:
    assert read_secret("key_file", make(tmp_path / "key", content)) == secret


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "is empty; write the secret into it"),
        (b" \n\n", "is empty; write the secret into it"),
        (b"\xff\xfe\x00", "is no text in UTF-8; write the secret into it"),
        (b"x" * (MAX_SECRET_BYTES + 1), "is too large for a secret; write the secret into it"),
    ],
)
def test_what_is_no_secret_is_refused_by_name(tmp_path: Path, content: bytes, text: str) -> None:
    path = make(tmp_path / "key", content)
    with pytest.raises(SettingsError, match=f"^key_file: {path} {text}"):
        read_secret("key_file", path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "absent", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(
            SettingsError, match=f"^key_file: {path} cannot be read: {reason}.*; give the name of a file"
        ):
            read_secret("key_file", path)


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o604, True), (0o644, True)])
def test_a_file_that_everybody_can_read_is_warned_of(tmp_path: Path, mode: int, warned: bool) -> None:
    path = make(tmp_path / "key", b"open sesame", mode)
    with capture_logs() as lines:
        assert read_secret("key_file", path) == "open sesame"
    assert [(line["log_level"], line["path"]) for line in lines] == [("warning", str(path))] * warned
    assert "sesame" not in str(lines)


def test_a_secret_has_one_form(tmp_path: Path) -> None:
    path = make(tmp_path / "key", b"from the file")
    assert secret_of("key", None, None) is None
    assert secret_of("key", SecretStr("given"), None) == "given"
    assert secret_of("key", None, path) == "from the file"
    with pytest.raises(SettingsError, match=r"^key_file: .*absent"):
        secret_of("key", None, tmp_path / "absent")
    for value, file in ((None, None), (SecretStr("given"), None), (None, path)):
        check_one_form("key", value, file)
    with pytest.raises(ValueError, match="key and key_file are both set: give one of them"):
        check_one_form("key", SecretStr("given"), path)
