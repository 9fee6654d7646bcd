"""The command: its options, its help, and the one line that says what is wrong."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from support.cluster.options import failure

from socketcluster.cli import main
from socketcluster.settings import OPTIONS


def test_each_option_has_a_line_of_help() -> None:
    assert [name for name, option in OPTIONS.items() if not option.help] == []
    result = CliRunner().invoke(main, ["run", "--help"])
    assert result.exit_code == 0
    assert "--session-timeout" in result.output


def test_an_unknown_option_of_the_command() -> None:
    said = failure("--sesion-timeout", "60")
    assert "--sesion-timeout" in said
    assert "--session-timeout" in said


def test_an_unknown_option_of_the_environment() -> None:
    said = failure(SOCKETCLUSTER_SESION_TIMEOUT="60")
    assert said == (
        "socketcluster: SOCKETCLUSTER_SESION_TIMEOUT: there is no such option; "
        "did you mean SOCKETCLUSTER_SESSION_TIMEOUT?\n"
    )


@pytest.mark.parametrize(
    ("arguments", "environ", "name", "value"),
    [
        (["--port", "80000"], {}, "--port", "80000"),
        (["--port", "http"], {}, "--port", "http"),
        (["--session-timeout", "soon"], {}, "--session-timeout", "soon"),
        (["--head-timeout", "-1"], {}, "--head-timeout", "-1"),
        (["--stores", "65"], {}, "--stores", "65"),
        (["--app-name", "my app"], {}, "--app-name", "my app"),
        (["--log-level", "loud"], {}, "--log-level", "loud"),
        ([], {"LOG_LEVEL": "loud"}, "LOG_LEVEL", "loud"),
        ([], {"SOCKETCLUSTER_BALANCERS": "0"}, "SOCKETCLUSTER_BALANCERS", "0"),
        ([], {"SOCKETCLUSTER_HEAD_TIMEOUT": "soon"}, "SOCKETCLUSTER_HEAD_TIMEOUT", "soon"),
        (["--engine", "oracle"], {"SOCKETCLUSTER_ENGINE": "lmdb"}, "--engine", "oracle"),
    ],
)
def test_a_malformed_value_is_one_line_that_names_it(
    arguments: list[str], environ: dict[str, str], name: str, value: str
) -> None:
    said = failure(*arguments, **environ)
    assert said.count("\n") == 1
    assert said.startswith(f"socketcluster: {name}: ")
    assert said.endswith(f"(got {value!r})\n")


def test_a_secret_is_never_shown() -> None:
    said = failure("--port", "x", SOCKETCLUSTER_SECRET="hunter2-hunter2-hunter2")
    assert "hunter2" not in said


def test_a_passphrase_is_not_shown() -> None:
    assert "open sesame" not in failure("--tls-passphrase", "open sesame")
