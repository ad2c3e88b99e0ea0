"""OpenTelemetry's SDK put together; imported by nobody who does not make spans."""

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
    """Return what makes spans and exports them; all else is read from the SDK's own variables.

    ``service`` is the name of the resource unless the environment has another.
    """
    told = OTELResourceDetector().detect().attributes
    resource = Resource.create({"service.name": told.get("service.name", service)})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    if "otlp" in exporters:
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    if "console" in exporters:
        a_line = ConsoleSpanExporter(
            out=sys.stdout, formatter=lambda span: span.to_json(indent=None) + "\n"
        )
        provider.add_span_processor(SimpleSpanProcessor(a_line))
    return provider
