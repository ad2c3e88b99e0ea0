"""The composition root of the events API; its command is in ``usage_ingest.command_line``."""

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Final

import structlog
from prometheus_client import CollectorRegistry

from nexus_messaging.publisher import Publisher
from nexus_service.asgi import probe_routes, serving_asgi
from nexus_service.checks import publishing_checks
from nexus_service.lifecycle import run_until, stop_on_signal
from nexus_service.rate_limit import RateLimiter
from usage_ingest.events_api.http import EventsApi, application
from usage_ingest.events_api.metrics import Metrics
from usage_ingest.events_api.settings import Settings

NAME: Final = "events-api"

log = structlog.get_logger()


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT, with or without the broker.

    Raises:
        StartError: the HTTP port is taken.
    """
    stop, registry = asyncio.Event(), CollectorRegistry()
    stop_on_signal(stop)
    async with AsyncExitStack() as stack:
        publisher = Publisher.connect_later(settings.amqp_url.get_secret_value(), name=NAME)
        stack.push_async_callback(publisher.close)

        async def broker_fault() -> str | None:
            return None if publisher.connected else "not connected for publishing"

        limit = RateLimiter(settings.api_rate_limit, settings.api_burst, time.monotonic)
        api = EventsApi(settings.api_keys, limit, publisher, Metrics(registry))
        probes = probe_routes(registry, health={}, readiness={"broker": broker_fault})
        server = await stack.enter_async_context(
            serving_asgi(application(api, probes), settings.http_host, settings.http_port)
        )
        log.info("serving", port=server.port)
        await run_until(stop, {}, [server], grace=settings.shutdown_grace_seconds)


CHECKS: Final = (publishing_checks(NAME),)
