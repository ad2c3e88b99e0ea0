"""Logs have one JSON object per line and no text of libraries."""

import json
import logging
import os
import pty

import pytest
import structlog

from nexus_messaging.message import Message
from nexus_messaging.tracing import message_span
from nexus_service.logs import configure
from support.deliveries import delivery
from support.spans import recorded_spans, written


def logged(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    """Return what was logged."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_event_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    """It has service, level and time."""
    configure(service="usage-ingest", level="INFO", form="json")

    structlog.get_logger().info("consumption_resumed", queue="q")
    structlog.get_logger().debug("not logged")

    (line,) = logged(capsys)
    assert (line["event"], line["service"], line["level"]) == (
        "consumption_resumed",
        "usage-ingest",
        "info",
    )
    assert "timestamp" in line


def test_line_within_span_has_trace_id(capsys: pytest.CaptureFixture[str]) -> None:
    """It connects logs and traces; without a span the field is absent."""
    configure(service="usage-ingest", level="INFO", form="json")

    with recorded_spans() as spans, message_span(delivery(Message(b"{}"), "q")):
        structlog.get_logger().info("message_retried")
    structlog.get_logger().info("stopping")

    within, without = logged(capsys)
    (span,) = spans.all()
    assert written(span.context)[:52] == f"00-{within['trace_id']}-{within['span_id']}"
    assert not {"trace_id", "span_id"} & set(without)


def test_library_log_is_one_line_without_its_text(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Libraries quote bodies and addresses in their messages and tracebacks."""
    configure(service="usage-ingest", level="INFO", form="json")

    error = ValueError("s3cret@example.com")
    logging.getLogger("vendor").error("handling %s", "s3cret@example.com", exc_info=error)
    logging.getLogger("vendor").info("s3cret@example.com")

    (line,) = logged(capsys)
    assert (line["event"], line["logger"], line["level"]) == ("library_log", "vendor", "error")
    assert line["error"] == "ValueError"
    assert "s3cret" not in str(line)


@pytest.mark.parametrize(("form", "as_json"), [("auto", False), ("console", False), ("json", True)])
def test_terminal_gets_readable_lines_unless_json_is_set(
    form: str, *, as_json: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`auto` depends on the terminal; the other formats do not."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as stream:
        monkeypatch.setattr("sys.stdout", stream)
        configure(service="usage-ingest", level="INFO", form=form)
        structlog.get_logger().info("serving", port=8080)
    shown = os.read(ours, 65536).decode()
    os.close(ours)

    assert "serving" in shown
    assert shown.startswith("{") is as_json


def test_auto_format_in_pipe_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    """A container needs no setting for JSON."""
    configure(service="usage-ingest", level="INFO", form="auto")

    structlog.get_logger().info("serving", port=8080)

    assert logged(capsys)[0]["event"] == "serving"


def test_console_format_in_file_has_no_colours(capsys: pytest.CaptureFixture[str]) -> None:
    """Escape codes are for terminals only."""
    configure(service="usage-ingest", level="INFO", form="console")

    structlog.get_logger().info("serving", port=8080)

    assert "\x1b" not in capsys.readouterr().out
