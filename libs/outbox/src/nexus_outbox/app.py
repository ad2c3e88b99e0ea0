"""The composition root of nexus-outbox: the one room that knows every part."""

import asyncio
import time
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

import structlog
from prometheus_client import CollectorRegistry

from nexus_database import Database, DatabaseUnavailableError
from nexus_database.connecting import Connector
from nexus_database.settings import DatabaseSettings
from nexus_database.url import DatabaseUrl
from nexus_messaging.errors import PublishError
from nexus_messaging.publisher import Publisher
from nexus_outbox.events_api import HttpPublisher
from nexus_outbox.installation import installation_fault, require_installed
from nexus_outbox.listening import Listener
from nexus_outbox.metrics import Metrics
from nexus_outbox.relay import Relay
from nexus_outbox.settings import Settings, TransportSettings
from nexus_outbox.storage import PORTION, Outbox
from nexus_service.checking import Checks
from nexus_service.http import serving
from nexus_service.lifecycle import Loop, run_until, stop_on_signal, wait_until_available
from nexus_service.periodic import Job, Periodic
from nexus_service.progress import StallDetector
from nexus_service.work import WorkRegistry

NAME: Final = "nexus-outbox"

MEASURE_EVERY: Final = 5.0
TIDY_EVERY: Final = 60.0
"""Seconds between rounds of pruning and recovering."""

SESSIONS: Final = 3
"""Of the pool: publishing, tidying, measuring. One more session listens."""

log = structlog.get_logger()


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        StartError: the HTTP port is taken.
        NotInstalledError: the database has no outbox that this release can use.
        StoppedError: stopped before the database and the broker were available.
    """
    stop, registry = asyncio.Event(), CollectorRegistry()
    stop_on_signal(stop)
    works, metrics = WorkRegistry(registry, service=NAME), Metrics(registry)
    connected: list[Publisher | HttpPublisher] = []
    url = settings.database_url.get_secret_value()
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(Database(url, name=NAME, pool_size=SESSIONS))
        installed = partial(installation_fault, database)
        stalls = StallDetector(works.activities, installed, time.monotonic)
        await stack.enter_async_context(
            serving(
                settings.http_host,
                settings.http_port,
                registry,
                health={"progress": stalls.fault},
                readiness={
                    "publishing": partial(_publishing_fault, connected),
                    "database": installed,
                },
            )
        )
        publisher = await _available(settings, database, stop)
        stack.push_async_callback(publisher.close)
        connected.append(publisher)
        publisher.watch_failures(metrics.publish_failed)
        relay = Relay(Outbox(database), publisher, metrics)
        loops = assemble(settings, relay, Outbox(database), works, metrics)
        log.info("serving", port=settings.http_port)
        await run_until(stop, loops, [relay], grace=settings.shutdown_grace_seconds)


def assemble(
    settings: Settings, relay: Relay, outbox: Outbox, works: WorkRegistry, metrics: Metrics
) -> dict[str, Loop]:
    """Return every loop by its name; nothing runs yet."""

    async def measure() -> None:
        metrics.show(await outbox.status())

    async def tidy() -> bool:
        recovered, pruned = await outbox.recover(), await outbox.prune(settings.keep_sent)
        metrics.recovered(recovered)
        metrics.pruned(pruned)
        return PORTION in {recovered, pruned}

    def every(seconds: float, name: str, job: Job) -> Periodic:
        return Periodic(job, works.add(name, continuous=True), every=seconds)

    publish = every(settings.poll_seconds, "publish", relay.publish_due)
    url = DatabaseUrl.of(settings.database_url.get_secret_value())
    return {
        "publish": publish.run,
        "listen": Listener(Connector(url, f"{NAME} listener"), publish.wake).run,
        "tidy": every(TIDY_EVERY, "tidy", tidy).run,
        "measure": every(MEASURE_EVERY, "measure", measure).run,
    }


async def _available(
    settings: TransportSettings, database: Database, stop: asyncio.Event
) -> Publisher | HttpPublisher:
    unavailable = (DatabaseUnavailableError,)
    await wait_until_available("database", lambda: require_installed(database), unavailable, stop)
    name = "broker" if settings.amqp_url else "events API"
    return await wait_until_available(name, lambda: _connect(settings, NAME), (PublishError,), stop)


async def _connect(settings: TransportSettings, name: str) -> Publisher | HttpPublisher:
    """Connect to where events go.

    Raises:
        PublishError: it is away, or refuses the login or the key.
    """
    if settings.amqp_url is not None:
        return await Publisher.connect(settings.amqp_url.get_secret_value(), name=name)
    assert settings.events_api_url is not None
    assert settings.events_api_key is not None
    key = settings.events_api_key.get_secret_value()
    return await HttpPublisher.connect(settings.events_api_url, key)


async def _publishing_fault(publishers: list[Publisher | HttpPublisher]) -> str | None:
    if not publishers:
        return "starting"
    [publisher] = publishers
    if isinstance(publisher, HttpPublisher):
        return await publisher.fault()
    return None if publisher.connected else "not connected for publishing"


async def _check_publishing(settings: TransportSettings) -> str | None:
    try:
        publisher = await _connect(settings, f"{NAME} check")
    except PublishError as error:
        return str(error)
    await publisher.close()
    return None


async def _check_database(settings: DatabaseSettings) -> str | None:
    async with Database(settings.database_url.get_secret_value(), name=f"{NAME} check") as database:
        return await installation_fault(database)


CHECKS: Final = (
    Checks(
        "publishing",
        TransportSettings,
        lambda given: {"publishing": lambda: _check_publishing(given)},
    ),
    Checks(
        "database", DatabaseSettings, lambda given: {"database": lambda: _check_database(given)}
    ),
)
