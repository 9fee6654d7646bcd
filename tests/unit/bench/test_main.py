"""The command line."""

from __future__ import annotations

import pytest

from bench.__main__ import parse
from bench.works.registry import WORKS


def test_everything_is_the_default() -> None:
    options = parse([])
    assert options.works.split(",") == list(WORKS)
    assert not options.smoke


@pytest.mark.parametrize("arguments", [["--works", "acknowledge,nothing"], ["--servers", "nobody"]])
def test_what_is_unknown_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(arguments)
    assert "unknown" in capsys.readouterr().err
