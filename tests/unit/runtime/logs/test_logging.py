"""The log of a service: where it goes, who it says it is from, and which levels of it are written."""

from __future__ import annotations

import json
import logging as stdlib_logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from support.log import WrittenLog, written

from socketcluster_runtime.errors import SettingsError
from socketcluster_runtime.logs.budget import BURST
from socketcluster_runtime.logs.logging import get_logger, set_level
from socketcluster_runtime.settings import ServiceSettings

OTHERS = ("uvicorn.error", "uvicorn.access", "asyncio", "grpc")


class Settings(ServiceSettings):
    """Those of some service."""

    service: ClassVar[str] = "tested"


@pytest.fixture(autouse=True)
def _levels_stay() -> Iterator[None]:
    loggers = [stdlib_logging.getLogger(name) for name in ("", *OTHERS)]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def only(log: WrittenLog) -> str:
    (line,) = log.lines
    return line


def test_for_people_a_line_has_time_level_process_and_fields() -> None:
    with written("text") as log:
        get_logger("socketcluster_worker.tested").info("ready", port=8000)
    assert re.fullmatch(r"\d\d:\d\d:\d\d \[info\] one: ready port=8000", only(log))


def test_for_programs_a_line_is_an_object() -> None:
    with written("json") as log:
        get_logger("socketcluster_worker.tested").info("ready", port=8000)
    said = json.loads(only(log))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", said.pop("timestamp"))
    assert said == {"event": "ready", "level": "info", "service": "tested", "name": "one", "port": 8000}


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_what_libraries_log_looks_like_what_services_log(log_format: Literal["text", "json"]) -> None:
    with written(log_format) as log:
        stdlib_logging.getLogger("some.library").warning("%d bytes", 7, extra={"port": 8000})
    line = only(log)
    if log_format == "json":
        said = json.loads(line)
        assert (said["event"], said["name"], said["port"]) == ("7 bytes", "one", 8000)
    else:
        assert "[warning] one: 7 bytes " in line
        assert line.endswith(" port=8000")


def test_a_line_that_is_held_back_has_the_exception_of_when_it_was_logged() -> None:
    with written("json") as log:
        for _ in range(BURST + 2):
            try:
                raise ValueError("then")
            except ValueError:
                get_logger("socketcluster_worker.tested").exception("failed")
    told = [json.loads(line) for line in log.lines]
    assert len(told) == BURST + 1  # the last one when the log is closed
    assert all("ValueError: then" in said["exception"] for said in told)


def test_what_is_less_important_is_not_written() -> None:
    with written("text") as log:
        set_level(Settings(log_level="warning"))
        own = get_logger("socketcluster_worker.tested")
        own.info("left out")
        own.warning("written")
    assert only(log).endswith("one: written")


@pytest.mark.parametrize(
    ("level", "others"), [("debug", "WARNING"), ("info", "WARNING"), ("warning", "WARNING"), ("error", "ERROR")]
)
def test_what_libraries_say_in_passing_is_not_ours_to_say(
    level: Literal["debug", "info", "warning", "error"], others: str
) -> None:
    assert set_level(Settings(log_level=level)) == level
    assert stdlib_logging.getLogger().level == stdlib_logging.getLevelName(level.upper())
    assert {stdlib_logging.getLevelName(stdlib_logging.getLogger(name).level) for name in OTHERS} == {others}


def test_the_level_in_a_file_counts_and_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "level"
    settings = Settings(log_level="info", log_level_file=path)
    path.write_text(" Error\n")
    assert set_level(settings) == "error"
    path.write_text("debug")
    assert set_level(settings) == "debug"
    path.write_text("loud")
    with pytest.raises(SettingsError, match="write one of debug, info, warning, error into it"):
        set_level(settings)
    path.unlink()
    with pytest.raises(SettingsError, match="cannot be read"):
        set_level(settings)
    assert stdlib_logging.getLogger().level == stdlib_logging.DEBUG  # as it was


def test_a_file_of_the_level_that_cannot_be_used_keeps_no_service_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOG_LEVEL_FILE", str(tmp_path / "missing"))
    with written("text") as log:
        get_logger("socketcluster_worker.tested").info("ready")
    assert [re.sub(r" error=.*", "", line[9:]) for line in log.lines] == [
        "[warning] one: the log's level is the one of LOG_LEVEL",
        "[info] one: ready",
    ]
