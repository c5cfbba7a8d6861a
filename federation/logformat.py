"""The log of `fedsync`: off unless asked for, on standard error, as text for people or one JSON object a line for programs."""

from __future__ import annotations

import logging
import sys
from typing import Literal

NAME = "fedsync"


def configure(form: Literal["text", "json"]) -> None:
    """Write the engine's log to standard error. Lines carry a time in UTC, a level, and the fields bound to them."""
    import structlog

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0)
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    log = logging.getLogger(NAME)
    log.handlers = [handler]
    log.setLevel(logging.INFO)
    log.propagate = False


def active() -> bool:
    """Whether somebody asked for the log."""
    return bool(logging.getLogger(NAME).handlers)
