"""A worker's options."""

from __future__ import annotations

from typing import Any, cast

import pytest
from pydantic import SecretStr, ValidationError

from socketcluster_runtime.errors import SettingsError
from socketcluster_worker.settings import WorkerSettings


def test_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOCKETCLUSTER_STORES", " a:1 , dns:///b:2,")
    assert WorkerSettings.load().stores == ("a:1", "dns:///b:2")
    monkeypatch.setenv("SOCKETCLUSTER_HEARTBEAT_INTERVALL", "5")
    with pytest.raises(SettingsError, match="did you mean SOCKETCLUSTER_HEARTBEAT_INTERVAL"):
        WorkerSettings.load()
    for wrong in ({"path": "no-slash"}, {"heartbeat_interval": 0}, {"max_http_buffer_size": 1}, {"stores": ""}):
        with pytest.raises(ValidationError):
            WorkerSettings(**{"stores": "a:1", "secret": SecretStr("x" * 16), **cast(Any, wrong)})
