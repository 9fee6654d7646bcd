"""The data folder with the secret in it, and the folder of the sockets."""

from __future__ import annotations

import re
import stat
import tempfile
from pathlib import Path

import pytest

from socketcluster import SocketCluster
from socketcluster.errors import DataInUseError, OptionError
from socketcluster.folders import MAX_TEMP_DIR, data_dir, run_dir


def test_a_secret_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    with pytest.raises(OptionError, match="secret"), data_dir(SocketCluster(data_dir=tmp_path).settings):
        pass


def test_the_secret_is_made_once_and_private(tmp_path: Path) -> None:
    secret = tmp_path / "kept" / "secret"
    settings = SocketCluster(data_dir=tmp_path / "kept").settings
    with data_dir(settings):
        assert len(secret.read_text()) >= 32
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    secret.write_text("x" * 40)
    with data_dir(settings):
        assert secret.read_text() == "x" * 40


def test_one_cluster_at_a_time_uses_a_data_folder(tmp_path: Path) -> None:
    settings = SocketCluster(data_dir=tmp_path, app_name="chat").settings
    said = f"another cluster of chat uses {tmp_path}: choose another folder with --data-dir"
    with data_dir(settings):
        with pytest.raises(DataInUseError, match=f"^{re.escape(said)}$"), data_dir(settings):
            pass
        with data_dir(SocketCluster(data_dir=tmp_path, app_name="other").settings):
            pass  # another application may
    with data_dir(settings):  # and the next one, once this one has gone
        pass


def test_what_the_launcher_keeps_is_private_in_a_folder_from_before_too(tmp_path: Path) -> None:
    settings = SocketCluster(data_dir=tmp_path / "data").settings
    for _ in range(2):
        with data_dir(settings):
            found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "data").iterdir()}
            assert found == {"socketcluster.lock": 0o600, "secret": 0o600, "store": 0o700}
        assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
        for path in (tmp_path / "data").iterdir():
            path.chmod(0o755 if path.is_dir() else 0o644)


def test_a_data_folder_and_a_secret_that_were_chosen_keep_their_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "shared").write_text("x" * 40)
    (tmp_path / "shared").chmod(0o640)
    monkeypatch.setenv("SOCKETCLUSTER_SECRET_FILE", str(tmp_path / "shared"))
    with data_dir(SocketCluster(data_dir=tmp_path).settings):
        pass
    assert [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path, tmp_path / "shared")] == [0o755, 0o640]


def test_the_sockets_folder_is_private_and_goes(tmp_path: Path) -> None:
    settings = SocketCluster(data_dir=tmp_path).settings
    with data_dir(settings) as lock, run_dir(lock) as path:
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert len(str(path)) < 60
    assert not path.exists()


def test_the_sockets_folder_of_a_killed_launcher_goes_at_the_next_start(tmp_path: Path) -> None:
    settings = SocketCluster(data_dir=tmp_path).settings
    with data_dir(settings) as lock, run_dir(lock) as path:
        pass
    path.mkdir()  # as if it had been killed there
    with data_dir(settings) as lock, run_dir(lock):
        assert not path.exists()


def test_only_a_folder_of_sockets_is_removed_at_the_next_start(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    settings = SocketCluster(data_dir=tmp_path / "data").settings
    with data_dir(settings) as lock:
        lock.truncate(0)
        lock.write(str(mine))
        lock.flush()
        with run_dir(lock):
            pass
    assert mine.is_dir()


def test_the_path_of_the_sockets_is_short_wherever_temporary_files_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = tmp_path / ("x" * MAX_TEMP_DIR)
    far.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(far))
    with data_dir(SocketCluster(data_dir=tmp_path / "data").settings) as lock, run_dir(lock) as path:
        assert path.parent == Path("/tmp")  # noqa: S108


def test_a_data_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with (
        pytest.raises(OptionError, match=r"^the data folder cannot be used: "),
        data_dir(SocketCluster(data_dir=tmp_path / "data").settings),
    ):
        pass
