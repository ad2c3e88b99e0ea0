"""The setup of OpenTelemetry's SDK; imported only while tracing is on."""

import sys
from collections.abc import Collection

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SimpleSpanProcessor,
)


def make_provider(service: str, exporters: Collection[str]) -> TracerProvider:
    """Return a provider with these exporters; the SDK reads its other options from its variables.

    ``service`` is the ``service.name`` of the resource, unless the environment sets another.
    """
    configured = OTELResourceDetector().detect().attributes
    resource = Resource.create({"service.name": configured.get("service.name", service)})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    if "otlp" in exporters:
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    if "console" in exporters:
        line_exporter = ConsoleSpanExporter(
            out=sys.stdout, formatter=lambda span: span.to_json(indent=None) + "\n"
        )
        provider.add_span_processor(SimpleSpanProcessor(line_exporter))
    return provider
