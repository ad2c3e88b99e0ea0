"""One JSON object a line, and nothing in it that a library quotes."""

import json
import logging

import pytest
import structlog

from nexus_messaging.logs import configure
from nexus_messaging.message import Delivery, Message
from nexus_messaging.tracing import processing
from rig.spans import recorded_spans, written


def logged(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    """Return what was logged."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_an_event_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    """With its service, its level and its time."""
    configure(service="usage-ingest", level="INFO", form="json")

    structlog.get_logger().info("consumption_resumed", queue="q")
    structlog.get_logger().debug("not told")

    (line,) = logged(capsys)
    assert (line["event"], line["service"], line["level"]) == (
        "consumption_resumed",
        "usage-ingest",
        "info",
    )
    assert "timestamp" in line


def test_a_line_within_a_span_names_its_trace(capsys: pytest.CaptureFixture[str]) -> None:
    """By which logs and traces are found from each other; without a span there is no such field."""
    configure(service="usage-ingest", level="INFO", form="json")

    with recorded_spans() as spans, processing(Delivery(Message(b"{}"), "q", "events")):
        structlog.get_logger().info("message_retried")
    structlog.get_logger().info("stopping")

    within, without = logged(capsys)
    (span,) = spans.all()
    assert written(span.context)[:52] == f"00-{within['trace_id']}-{within['span_id']}"
    assert not {"trace_id", "span_id"} & set(without)


def test_a_librarys_warning_is_one_line_of_json_without_its_words(
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
