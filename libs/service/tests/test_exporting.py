"""Whether spans are made, and where they go, by OpenTelemetry's own variables."""

import json

import pytest
from opentelemetry.trace import SpanKind

from nexus_messaging.tracing import begun, is_on
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
def test_spans_are_made_only_where_an_exporter_is_asked_for(
    environment: dict[str, str], chosen: tuple[str, ...]
) -> None:
    """Off by default, though OpenTelemetry's own default is on."""
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
def test_what_cannot_be_exported_to_is_refused(environment: dict[str, str], named: str) -> None:
    """Spans that silently went nowhere would be missed on the day they are needed."""
    with pytest.raises(SettingsError, match=f"^{named}"):
        chosen_exporters(environment)


@pytest.mark.parametrize("name", [None, "metering-eu"])
def test_the_console_gets_a_span_a_line_named_for_its_service(
    name: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside the log lines; the environment may name the service otherwise."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    if name is not None:
        monkeypatch.setenv("OTEL_SERVICE_NAME", name)

    with exporting("usage-ingest"):
        begun("claim usage", SpanKind.INTERNAL).end()
        on = is_on()

    (line,) = capsys.readouterr().out.splitlines()
    span = json.loads(line)
    assert (on, is_on()) == (True, False)
    assert span["name"] == "claim usage"
    assert span["resource"]["attributes"]["service.name"] == (name or "usage-ingest")


def test_without_an_exporter_nothing_is_switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK is not even imported."""
    monkeypatch.delenv("OTEL_TRACES_EXPORTER", raising=False)

    with exporting("usage-ingest"):
        assert not is_on()
