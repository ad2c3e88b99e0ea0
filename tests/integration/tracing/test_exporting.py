"""The export of spans: to a collector over OTLP, and at the end of a service."""

import asyncio
import socket
import time

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.trace import SpanKind

from nexus_messaging.topology import TOOL_EXECUTED_QUEUE
from nexus_messaging.tracing import start_span
from nexus_service.exporting import LAST_EXPORT_WITHIN, exporting
from support.events import tool_run
from support.http_servers import serve_routes
from support.platform import Platform
from support.spans import PUBLISHER, TRACE
from support.waiting import eventually


async def test_service_exports_remaining_spans_at_its_end(platform: Platform) -> None:
    """Under its name, over OTLP; the schedule is so slow that only the end of it exports."""
    requests: list[ExportTraceServiceRequest] = []

    async def collect(request: web.Request) -> web.Response:
        requests.append(ExportTraceServiceRequest.FromString(await request.read()))
        return web.Response(content_type="application/x-protobuf")

    async with serve_routes(web.post("/v1/traces", collect)) as endpoint:
        platform.settings |= {
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "3600000",
        }
        await asyncio.to_thread(platform.start, "usage-ingest")
        await platform.vhost.publish(tool_run().model_copy(update={"traceparent": PUBLISHER}))
        await eventually(lambda: platform.rows("usage_ingest", "SELECT 1 FROM usage_events"), bool)
        await asyncio.to_thread(platform.services["usage-ingest"].stop)

    (resource,) = requests[0].resource_spans
    named = {each.key: each.value.string_value for each in resource.resource.attributes}
    (record,) = [
        span
        for scope in resource.scope_spans
        for span in scope.spans
        if span.name == f"process {TOOL_EXECUTED_QUEUE}"
    ]
    assert named["service.name"] == "usage-ingest"
    assert [link.trace_id.hex() for link in record.links] == [TRACE]


@pytest.mark.parametrize("listening", [False, True], ids=["refusing", "silent"])
def test_silent_collector_delays_no_shutdown(
    *, listening: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither one that refuses connections nor one that accepts them and sends nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if not listening:
            server.close()
        monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")

        with exporting("usage-ingest"):
            start_span("claim usage", SpanKind.INTERNAL).end()
            ending = time.monotonic()
        took = time.monotonic() - ending

    assert took < LAST_EXPORT_WITHIN + 1
