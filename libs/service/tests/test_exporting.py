"""Creation and export of spans, configured by OpenTelemetry's variables."""

import json

import pytest
from opentelemetry.trace import SpanKind

from nexus_messaging.tracing import spans_enabled, start_span
from nexus_service.exporting import chosen_exporters, exporting
from nexus_service.settings import SettingsError


@pytest.mark.parametrize(
    ("environment", "chosen"),
    [
        ({}, ()),
        ({"OTEL_TRACES_EXPORTER": ""}, ()),
        ({"OTEL_TRACES_EXPORTER": "none"}, ()),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ("otlp",)),
        ({"OTEL_TRACES_EXPORTER": "otlp, console"}, ("otlp", "console")),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "true"}, ()),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "false"}, ("otlp",)),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
            ("otlp",),
        ),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, ()),
    ],
    ids=str,
)
def test_spans_are_created_only_with_an_exporter(
    environment: dict[str, str], chosen: tuple[str, ...]
) -> None:
    """Off by default, unlike OpenTelemetry's default."""
    assert chosen_exporters(environment) == chosen


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER: "),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL: ",
        ),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"},
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: ",
        ),
    ],
    ids=str,
)
def test_unknown_exporter_or_protocol_is_refused(environment: dict[str, str], named: str) -> None:
    """Otherwise spans would be lost silently."""
    with pytest.raises(SettingsError, match=f"^{named}"):
        chosen_exporters(environment)


@pytest.mark.parametrize("name", [None, "metering-eu"])
def test_console_exporter_writes_one_line_per_span(
    name: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each span has the service's name; the environment may set another."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    if name is not None:
        monkeypatch.setenv("OTEL_SERVICE_NAME", name)

    with exporting("usage-ingest"):
        start_span("claim usage", SpanKind.INTERNAL).end()
        on = spans_enabled()

    (line,) = capsys.readouterr().out.splitlines()
    span = json.loads(line)
    assert (on, spans_enabled()) == (True, False)
    assert span["name"] == "claim usage"
    assert span["resource"]["attributes"]["service.name"] == (name or "usage-ingest")


def test_tracing_is_off_without_exporter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK is not even imported."""
    monkeypatch.delenv("OTEL_TRACES_EXPORTER", raising=False)

    with exporting("usage-ingest"):
        assert not spans_enabled()
