"""Settings are read from the environment; what is wrong is named."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import Field

from socketcluster_runtime.errors import SettingsError
from socketcluster_runtime.settings import ServiceSettings, did_you_mean


class ExampleSettings(ServiceSettings):
    """A service's."""

    service: ClassVar[str] = "example"
    session_timeout: float = Field(1200.0, gt=0)


def load(monkeypatch: pytest.MonkeyPatch, **environment: str) -> ExampleSettings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return ExampleSettings.load()


def test_values_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, SOCKETCLUSTER_SESSION_TIMEOUT="0.5", SOCKETCLUSTER_APP_NAME="mine", LOG_FORMAT="json")
    assert (settings.session_timeout, settings.app_name, settings.log_format) == (0.5, "mine", "json")


def test_an_unknown_option_is_refused_with_the_nearest_known(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"the example knows no such option; did you mean SOCKETCLUSTER_APP_NAME\?"):
        load(monkeypatch, SOCKETCLUSTER_APPNAME="mine")


def test_nothing_is_suggested_for_what_resembles_nothing() -> None:
    assert did_you_mean("zzzzzz", ["SOCKETCLUSTER_APP_NAME"]) == ""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SOCKETCLUSTER_SESSION_TIMEOUT", "soon"),
        ("SOCKETCLUSTER_SESSION_TIMEOUT", "0"),
        ("SOCKETCLUSTER_APP_NAME", "not a name"),
        ("LOG_LEVEL", "loud"),
    ],
)
def test_a_malformed_value_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{name}: .*\(got '{value}'\)$"):
        load(monkeypatch, **{name: value})


def test_a_secret_is_given_or_kept_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="SOCKETCLUSTER_SECRET is not set"):
        load(monkeypatch).shared_secret()
    path = tmp_path / "secret"
    made = load(monkeypatch, SOCKETCLUSTER_SECRET_FILE=str(path)).shared_secret()
    assert len(made) >= 32
    assert ExampleSettings.load().shared_secret() == made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
    settings = load(monkeypatch, SOCKETCLUSTER_SECRET="this one goes before the file")
    assert settings.shared_secret() == "this one goes before the file"
    assert "goes before" not in repr(settings)


def test_a_short_secret_is_refused_without_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="too short") as caught:
        load(monkeypatch, SOCKETCLUSTER_SECRET="hush").shared_secret()
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(("content", "text"), [("", "is empty; write the secret"), ("hush\n", "is too short")])
def test_a_secrets_file_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str, text: str
) -> None:
    path = tmp_path / "secret"
    path.write_text(content)
    with pytest.raises(SettingsError, match=f"^SOCKETCLUSTER_SECRET_FILE: .*{path} {text}") as caught:
        load(monkeypatch, SOCKETCLUSTER_SECRET_FILE=str(path)).shared_secret()
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ("CERT", "rpc_tls_key and rpc_tls_ca"),
        ("KEY", "rpc_tls_cert and rpc_tls_ca"),
        ("CA", "rpc_tls_cert and rpc_tls"),
    ],
)
def test_tls_between_services_is_all_of_its_files_or_none(
    monkeypatch: pytest.MonkeyPatch, given: str, missing: str
) -> None:
    said = rf"^rpc_tls_cert, rpc_tls_key and rpc_tls_ca belong together: {missing}.* is not set$"
    with pytest.raises(SettingsError, match=said):
        load(monkeypatch, **{f"SOCKETCLUSTER_RPC_TLS_{given}": "a.pem"})


def test_without_its_options_there_is_no_tls_between_services(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(monkeypatch).rpc_tls() is None


def test_a_secrets_folder_that_does_not_exist_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = load(monkeypatch, SOCKETCLUSTER_SECRET_FILE=str(tmp_path / "missing" / "secret"))
    with pytest.raises(SettingsError, match="SOCKETCLUSTER_SECRET_FILE"):
        settings.shared_secret()
