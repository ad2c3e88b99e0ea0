"""Logging of services: one JSON object per line, or readable lines on a terminal."""

import logging
import os
import signal
import sys
from typing import TextIO

import structlog
from opentelemetry.trace import format_span_id, format_trace_id, get_current_span
from typing_extensions import override

from nexus_contracts.wording import printable
from nexus_service.console import is_interactive


def configure(*, service: str, level: str, form: str) -> None:
    """Send structlog's and the libraries' logs to standard output.

    ``level`` is a logging level's name, ``form`` is ``json``, ``console``, or ``auto``, which is
    ``console`` on a terminal only. A line within a span has its ``trace_id`` and ``span_id``.
    Libraries log from WARNING up, because some quote message bodies at lower levels.
    """
    as_json = form == "json" or (form == "auto" and not sys.stdout.isatty())
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(
            colors=is_interactive(sys.stdout), exception_formatter=structlog.dev.plain_traceback
        )
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _with_trace,
            *(() if as_json else (_printable,)),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _Lines(sys.stdout),
    )
    structlog.contextvars.bind_contextvars(service=service)
    logging.basicConfig(level=logging.WARNING, handlers=[_NamesOnly()], force=True)


def _with_trace(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    context = get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = format_trace_id(context.trace_id)
        event["span_id"] = format_span_id(context.span_id)
    return event


def _printable(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Escape control characters: a publisher chooses its message ids, for example."""
    return {
        name: printable(value) if isinstance(value, str) else value for name, value in event.items()
    }


class _Lines:
    """Writes lines; an error in writing never fails the work that logs.

    If the disk is full, the line is dropped. If the output is closed, the service stops, as SIGPIPE
    would stop another program.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, line: str) -> None:
        """Write a line, if the stream accepts it."""
        try:
            self._stream.write(f"{line}\n")
            self._stream.flush()
        except BrokenPipeError:
            os.kill(os.getpid(), signal.SIGTERM)
        except OSError:
            pass

    debug = info = warning = error = critical = write


class _NamesOnly(logging.Handler):
    """Logs that a library has logged, without its text, which may quote message bodies."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[0] if record.exc_info else None
        structlog.get_logger().log(
            record.levelno,
            "library_log",
            logger=record.name,
            where=f"{record.filename}:{record.lineno}",
            error=error.__name__ if error else None,
        )
