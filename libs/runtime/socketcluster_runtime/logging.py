"""Logging: one line an event, for people or as JSON, the standard library's loggers (uvicorn, gRPC) included."""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from socketcluster_runtime.settings import ServiceSettings


def configure(settings: ServiceSettings) -> None:
    """Send every log message of this process to standard error, in the format of ``settings``."""

    def add_origin(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        if settings.log_format == "json":
            event["service"] = settings.service
            event["name"] = settings.name
        else:
            event["event"] = f"{settings.name}: {event['event']}"
        return event

    shared: list[Processor] = [structlog.contextvars.merge_contextvars, structlog.stdlib.add_log_level, add_origin]
    if settings.log_format == "json":
        shared.append(structlog.processors.TimeStamper(fmt="iso", utc=True))
        last: list[Processor] = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        shared.append(structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False))
        last = [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                pad_event_to=0,
                pad_level=False,
                exception_formatter=structlog.dev.plain_traceback,
            )
        ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level.upper())
    for name in ("uvicorn.error", "uvicorn.access", "asyncio", "grpc"):  # what they say at info is not ours to say
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
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


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger of a module; what is logged has a short event and fields: ``log.info("ready", port=8000)``."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger
