"""The data folder, and the secret in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from socketcluster import SocketCluster
from socketcluster.errors import OptionError
from socketcluster.folders import data_dir


def test_a_secret_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    with pytest.raises(OptionError, match="secret"), data_dir(SocketCluster(data_dir=tmp_path).settings):
        pass
