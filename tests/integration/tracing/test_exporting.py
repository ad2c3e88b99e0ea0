"""Spans on their way out: to a collector over OTLP, and at the end of a service."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.trace import SpanKind

from nexus_messaging.topology import TOOL_EXECUTED_QUEUE
from nexus_messaging.tracing import begun
from nexus_service.exporting import LAST_EXPORT_WITHIN, exporting
from rig.events import tool_run
from rig.platform import Platform
from rig.spans import PUBLISHER, TRACE
from rig.waiting import eventually


@asynccontextmanager
async def collector(requests: list[ExportTraceServiceRequest]) -> AsyncIterator[str]:
    """Take spans as a collector does; yield its endpoint."""

    async def take(request: web.Request) -> web.Response:
        requests.append(ExportTraceServiceRequest.FromString(await request.read()))
        return web.Response(content_type="application/x-protobuf")

    app = web.Application()
    app.add_routes([web.post("/v1/traces", take)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_a_service_exports_by_the_standard_variables_and_what_is_left_at_its_end(
    platform: Platform,
) -> None:
    """Under its own name, over OTLP; the schedule here is so slow that only the end exports."""
    requests: list[ExportTraceServiceRequest] = []
    async with collector(requests) as endpoint:
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
def test_a_collector_that_is_away_holds_up_no_ending(
    *, listening: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it can't be reached or takes a connection and says nothing: spans are only spans."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if not listening:
            server.close()
        monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")

        with exporting("usage-ingest"):
            begun("claim usage", SpanKind.INTERNAL).end()
            ending = time.monotonic()
        took = time.monotonic() - ending

    assert took < LAST_EXPORT_WITHIN + 1
