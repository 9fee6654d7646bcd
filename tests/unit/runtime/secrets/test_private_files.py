"""Files and folders that nobody else may read."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from socketcluster_runtime.secrets.private_files import make_folder, make_private, private


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_missing_of_a_folder_is_made_private(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for _ in range(2):
        make_folder(tmp_path / "a" / "b")
        assert [mode(tmp_path / "a" / "b"), mode(tmp_path / "a"), mode(tmp_path)] == [0o700, 0o700, 0o755]


def test_a_folder_that_was_there_becomes_private(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b").chmod(0o755)
    make_folder(tmp_path / "a" / "b")
    assert mode(tmp_path / "a" / "b") == 0o700


def test_files_from_before_and_new_ones_become_private(tmp_path: Path) -> None:
    before = tmp_path / "before"
    before.touch()
    before.chmod(0o664)
    make_private(before)
    with open(tmp_path / "new", "a+", opener=private):
        pass
    assert [mode(before), mode(tmp_path / "new")] == [0o600, 0o600]


def test_what_belongs_to_somebody_else_is_left_to_him(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: Path, _mode: int) -> None:
        raise PermissionError("not the owner")

    tmp_path.chmod(0o770)
    monkeypatch.setattr(Path, "chmod", refuse)
    make_folder(tmp_path)
    assert mode(tmp_path) == 0o770
