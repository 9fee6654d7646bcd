"""The log of a service, as it writes it, in the test's own process."""

from __future__ import annotations

import io
import logging as stdlib_logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import ClassVar, Literal

import structlog

from socketcluster_runtime.logs import logging
from socketcluster_runtime.logs.budget import BudgetHandler
from socketcluster_runtime.settings import ServiceSettings


class _Settings(ServiceSettings):
    service: ClassVar[str] = "tested"


class WrittenLog:
    """What was logged.

    Attributes:
        handler: which writes it.
    """

    def __init__(self, out: io.StringIO, handler: BudgetHandler) -> None:
        self._out = out
        self.handler = handler

    @property
    def text(self) -> str:
        return self._out.getvalue()

    @property
    def lines(self) -> list[str]:
        """Its lines; nothing but a line feed ends one."""
        return self.text.removesuffix("\n").split("\n")


@contextmanager
def written(log_format: Literal["text", "json"]) -> Iterator[WrittenLog]:
    """Log as a service does, but into memory."""
    root = stdlib_logging.getLogger()
    handlers, level, former, out = root.handlers, root.level, structlog.get_config(), io.StringIO()
    with redirect_stderr(out):
        logging.configure(_Settings(name="one", log_format=log_format))
    structlog.configure(cache_logger_on_first_use=False)  # later tests have another configuration
    handler = root.handlers[0]
    assert isinstance(handler, BudgetHandler)
    root.handlers = handlers  # pytest's own come and go meanwhile
    root.addHandler(handler)
    try:
        yield WrittenLog(out, handler)
        handler.close()
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        structlog.configure(**former)
