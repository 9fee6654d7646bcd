"""What the balancer can be told, and what is said of the rest."""

from __future__ import annotations

import pytest

from socketcluster_balancer.settings import BalancerSettings
from socketcluster_runtime.errors import SettingsError


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SOCKETCLUSTER_WORKRS", "x:1", "did you mean SOCKETCLUSTER_WORKERS?"),
        ("SOCKETCLUSTER_WORKERS", "", "SOCKETCLUSTER_WORKERS"),
        ("SOCKETCLUSTER_WORKERS", "worker", "not host:port"),
        ("SOCKETCLUSTER_WORKERS", "dns:///worker", "not host:port"),
        ("SOCKETCLUSTER_LISTEN", "8000", "not host:port"),
        ("SOCKETCLUSTER_LISTEN", "a..b:8000", "not host:port"),
        ("SOCKETCLUSTER_LISTEN", "0.0.0.0:80000", "'0.0.0.0:80000' is no address: a port is between 0 and 65535"),
        ("SOCKETCLUSTER_WORKERS", "dns:///worker:0", "'worker:0' is no address: a port is between 1 and 65535"),
        ("SOCKETCLUSTER_MAX_HEAD_BYTES", "100000", "SOCKETCLUSTER_MAX_HEAD_BYTES"),
    ],
)
def test_wrong_settings_are_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str) -> None:
    monkeypatch.setenv("SOCKETCLUSTER_WORKERS", "worker:7100")
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=said.replace("?", r"\?")):
        BalancerSettings.load()


def test_workers_are_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOCKETCLUSTER_WORKERS", "dns:///worker:7100, unix:/run/w.sock,[::1]:7100,")
    assert BalancerSettings.load().workers == ["dns:///worker:7100", "unix:/run/w.sock", "[::1]:7100"]
