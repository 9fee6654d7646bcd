"""The command: its options, and what it says of those that make no sense."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from socketcluster.bench import command
from socketcluster.bench.plan import Plan
from socketcluster.cli import main


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """Return the plans that were carried out, which none is."""
    made: list[Plan] = []

    async def run(plan: Plan, *, as_json: bool) -> int:
        made.append(plan)
        return 7 if as_json else 0

    monkeypatch.setattr(command, "_run", run)
    return made


def test_it_is_one_of_the_commands_and_explains_itself() -> None:
    assert "bench" in CliRunner().invoke(main, ["--help"]).output
    said = CliRunner().invoke(main, ["bench", "--help"])
    assert said.exit_code == 0
    assert "connects to that URL and nothing else" in said.output


def test_options_become_the_plan(plans: list[Plan]) -> None:
    options = "--protocol socketcluster --mode broadcast -c 5 -d 2 --size 9 --origin same --cookie a=b"
    result = CliRunner().invoke(main, ["bench", "https://a", *options.split(), "-H", "X-Y:  z ", "--json"])
    assert result.exit_code == 7
    (plan,) = plans
    assert (plan.connections, plan.duration, plan.size, plan.rate) == (5, 2.0, 9, command.BROADCASTS)
    assert plan.headers == (("X-Y", "z"), ("Cookie", "a=b"), ("Origin", "https://a"))


def test_without_options_each_client_waits_for_its_answer(plans: list[Plan]) -> None:
    assert CliRunner().invoke(main, ["bench", "a:8000"]).exit_code == 0
    assert (plans[0].rate, plans[0].connections, plans[0].ca) == (0.0, 100, "")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["ftp://a"], "begins with http://"),
        (["a", "-H", "nonsense"], "'Name: value'"),
        (["a", "-H", "a: b\r\nc: d"], "'Name: value'"),
        (["a", "--processes", "3", "-c", "2"], "--processes 3"),
        (["a", "--auth", "{"], "--auth is no JSON"),
        (["a", "--mode", "broadcast", "--protocol", "websocket", "-r", "0"], "give a rate"),
        (["a", "-c", "0"], "x>=1"),
        (["a", "--ca", "/nowhere"], "/nowhere"),
        ([], "URL"),
    ],
)
def test_what_makes_no_sense_is_said(options: list[str], said: str, plans: list[Plan]) -> None:
    result = CliRunner().invoke(main, ["bench", *options])
    assert result.exit_code == 2
    assert said in result.output
    assert plans == []
