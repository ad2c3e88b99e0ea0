"""The composition root of the usage API; its command is in ``usage_ingest.command_line``."""

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Final

import structlog
from prometheus_client import CollectorRegistry

from nexus_database import Database
from nexus_messaging.clock import utc_now
from nexus_service.asgi import probe_routes, serving_asgi
from nexus_service.checking import Checks
from nexus_service.errors import StartError
from nexus_service.lifecycle import run_until, stop_on_signal
from nexus_service.rate_limit import RateLimiter
from usage_ingest.usage_api.headers import component_files
from usage_ingest.usage_api.http import (
    ENTITLEMENTS_AT_ONCE,
    USAGE_AT_ONCE,
    Callers,
    UsageApi,
    application,
)
from usage_ingest.usage_api.metrics import Metrics
from usage_ingest.usage_api.settings import Settings
from usage_ingest.usage_api.storage import UsageReader
from usage_ingest.usage_api.tokens import KeysError, TokenKeys

NAME: Final = "usage-api"

USER_BURST: Final = 10
"""Seconds whose requests a user may send at once: a page asks several questions when it opens."""

SESSIONS: Final = ENTITLEMENTS_AT_ONCE + USAGE_AT_ONCE + 1
"""One for each request whose turn it is, and one for readiness."""

log = structlog.get_logger()


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT, with or without the database.

    Raises:
        StartError: the HTTP port is taken, or a file that the settings name can't be used.
    """
    stop, registry = asyncio.Event(), CollectorRegistry()
    stop_on_signal(stop)
    token_keys, plans = _token_keys(settings), settings.plans_file
    files = settings.usage_component_dir
    if files is not None and not files.is_dir():
        raise StartError("USAGE_COMPONENT_DIR: there is no such folder")
    async with AsyncExitStack() as stack:
        url = settings.database_url.get_secret_value()
        database = await stack.enter_async_context(
            Database(url, name=NAME, pool_size=SESSIONS, only_reads=True)
        )
        reader = UsageReader(database, plans)

        async def keys_fault() -> str | None:
            return token_keys.fault() if token_keys else None

        rate = settings.usage_rate_limit
        callers = Callers(
            settings.api_keys,
            RateLimiter(settings.api_rate_limit, settings.api_burst, time.monotonic),
            token_keys,
            RateLimiter(rate, rate * USER_BURST, time.monotonic),
            utc_now,
        )
        app = application(
            UsageApi(callers, reader, plans, Metrics(registry)),
            probe_routes(
                registry,
                health={},
                readiness={"database": reader.fault, "token keys": keys_fault},
            ),
            origins=settings.usage_origins,
            frame_ancestors=settings.usage_frame_ancestors,
            files=None if files is None else component_files(files),
        )
        server = await stack.enter_async_context(
            serving_asgi(app, settings.http_host, settings.http_port)
        )
        log.info("serving", port=server.port)
        await run_until(stop, {}, [server], grace=settings.shutdown_grace_seconds)


def _token_keys(settings: Settings) -> TokenKeys | None:
    try:
        return TokenKeys(settings.usage_token_keys) if settings.usage_token_keys else None
    except KeysError as error:
        raise StartError(str(error)) from None


async def _database_fault(settings: Settings) -> str | None:
    url = settings.database_url.get_secret_value()
    async with Database(url, name=f"{NAME} check", only_reads=True) as database:
        return await UsageReader(database, None).fault()


async def _keys_fault(settings: Settings) -> str | None:
    try:
        _token_keys(settings)
    except StartError as error:
        return str(error)
    return None


CHECKS: Final = (
    Checks(
        "database",
        Settings,
        lambda given: {
            "database": lambda: _database_fault(given),
            "token keys": lambda: _keys_fault(given),
        },
    ),
)
