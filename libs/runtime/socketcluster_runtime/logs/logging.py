"""Logging: one line an event, for people or as JSON, the standard library's loggers (uvicorn, gRPC) included.

No text that a client sent can begin a line (:mod:`~socketcluster_runtime.logs.text`), and nothing that a client does
again and again fills the log (:mod:`~socketcluster_runtime.logs.budget`).
"""

from __future__ import annotations

import logging
import sys
from typing import Protocol

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from socketcluster_runtime.errors import SettingsError
from socketcluster_runtime.logs import text
from socketcluster_runtime.logs.budget import BudgetHandler


class LogSettings(Protocol):
    """What the log is told of a service: its settings, which cannot be imported here, as reading them logs, too."""

    @property
    def service(self) -> str:
        """Which of the services it is."""

    @property
    def name(self) -> str:
        """What its process is called."""

    @property
    def log_format(self) -> str:
        """``text`` or ``json``."""

    @property
    def log_level(self) -> str:
        """The least important level that is logged, if nothing else is said."""

    def current_log_level(self) -> str:
        """Return the least important level that is logged now.

        Raises:
            SettingsError: the file that says it cannot be used.
        """


def configure(settings: LogSettings) -> None:
    """Send every log message of this process to standard error, in the format of ``settings``.

    A file of the level that cannot be used costs a warning: no service is to stay down for how much it says.
    """

    def add_origin(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        if settings.log_format == "json":
            event["service"] = settings.service
            event["name"] = settings.name
        else:
            event["event"] = f"{settings.name}: {event['event']}"
        return event

    def find_exception(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        if event.get("exc_info") is True:  # a line that is held back is written when nothing is being handled
            event["exc_info"] = sys.exc_info()
        return event

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        find_exception,
        add_origin,
    ]
    if settings.log_format == "json":
        shared.append(structlog.processors.TimeStamper(fmt="iso", utc=True))
        last: list[Processor] = [
            structlog.processors.format_exc_info,
            text.for_programs,
            structlog.processors.JSONRenderer(text.to_json),
        ]
    else:
        shared.append(structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False))
        last = [
            text.for_people,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                pad_event_to=0,
                pad_level=False,
                exception_formatter=text.write_traceback,
            ),
        ]
    handler = BudgetHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level.upper())
    problem = None
    try:
        set_level(settings)
    except SettingsError as error:
        problem = str(error)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    if problem is not None:
        get_logger(__name__).warning("the log's level is the one of LOG_LEVEL", error=problem, level=settings.log_level)


def set_level(settings: LogSettings) -> str:
    """Log from now on what is as important as ``settings``, or the file that they name, say; return that level.

    Raises:
        SettingsError: the file cannot be used; the level stays as it is.
    """
    level = settings.current_log_level()
    root = logging.getLogger()
    root.setLevel(level.upper())
    for name in ("uvicorn.error", "uvicorn.access", "asyncio", "grpc"):  # what they say at info is not ours to say
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    return level


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger of a module; what is logged has a short event and fields: ``log.info("ready", port=8000)``."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger
