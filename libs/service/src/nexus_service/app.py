"""A running service: its consumers, its periodic jobs and its probes.

The ``app`` module of a service registers these parts. This module adds metrics, readiness, stall
detection, draining and the order of shutdown.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry

from nexus_database import Database, DatabaseUnavailableError, require_current, revision_fault
from nexus_messaging.batches import BatchConsumption
from nexus_messaging.consumer import Consumer
from nexus_messaging.consumption import Consumption
from nexus_messaging.errors import PublishError
from nexus_messaging.flood_guard import FloodGuards
from nexus_messaging.metrics import MessagingMetrics
from nexus_messaging.pipeline import Outage
from nexus_messaging.publisher import Publisher
from nexus_messaging.router import Handlers, Route, Router
from nexus_messaging.settlement import Settlement
from nexus_messaging.singles import SingleConsumption
from nexus_service.checking import Check
from nexus_service.connections import Connections
from nexus_service.http import serving
from nexus_service.lifecycle import (
    Loop,
    resume_on_signal,
    run_until,
    stop_on_signal,
    wait_until_available,
)
from nexus_service.periodic import Job, Periodic
from nexus_service.progress import STALLED_AFTER, StallDetector
from nexus_service.settings import ServiceSettings
from nexus_service.work import Work, WorkRegistry

POOL_SIZE: Final = 5
"""Connections to the database. Work waits while all of them are in use."""

log = structlog.get_logger()


class App:
    """The parts of a service. They are registered first and run together.

    ``name`` identifies the service at the broker, at the database and in metrics. With underscores
    it is the Python package whose migrations define the revision that the database must have.
    """

    def __init__(
        self,
        name: str,
        settings: ServiceSettings,
        database: Database,
        publisher: Publisher | None = None,
        registry: CollectorRegistry | None = None,
    ) -> None:
        self.name = name
        self._package = name.replace("-", "_")
        self.database = database
        self.registry = registry or CollectorRegistry()
        self._connections = Connections(publisher)
        self.readiness: dict[str, Check] = {
            "broker": self._connections.fault,
            "database": lambda: revision_fault(database, self._package),
        }
        self.health: dict[str, Check] = {"broker": self._connections.liveness_fault}
        self.remarks: dict[str, Check] = {}
        self.consumptions: list[Consumption] = []
        self.loops: dict[str, Loop] = {}
        self._jobs: dict[str, Periodic] = {}
        self.stop = asyncio.Event()
        self._settings = settings
        self._works = WorkRegistry(self.registry, service=name)
        self._guards: FloodGuards | None = None

    @property
    def publisher(self) -> Publisher:
        """The service's publisher.

        Raises:
            PublishError: the service has not connected to the broker since its start.
        """
        if self._connections.publisher is None:
            raise PublishError("the broker has not been reached yet")
        return self._connections.publisher

    def work(
        self,
        name: str,
        *,
        continuous: bool = False,
        errors_stall: bool = True,
        limit: float = STALLED_AFTER,
    ) -> Work:
        """Register work that fails `/healthz` once it is stalled; see ``Activity``."""
        return self._works.add(name, continuous=continuous, errors_stall=errors_stall, limit=limit)

    def every(
        self,
        seconds: float,
        name: str,
        job: Job,
        *,
        gather: float = 0.0,
        intervals: int = 1,
        errors_stall: bool = True,
        limit: float = STALLED_AFTER,
    ) -> Periodic:
        """Register ``job``: it runs every ``seconds`` and when it is woken; see ``Periodic``."""
        work = self.work(name, continuous=True, errors_stall=errors_stall, limit=limit)
        periodic = Periodic(job, work, every=seconds, gather=gather, intervals=intervals)
        self.loops[name] = periodic.run
        self._jobs[name] = periodic
        return periodic

    def wake(self, name: str) -> None:
        """Have a registered job do a round now. Before it is registered this does nothing."""
        if name in self._jobs:
            self._jobs[name].wake()

    def consume(self, router: Router, outage: Outage, **provided: object) -> None:
        """Consume the queues of ``router``; ``provided`` is injected into its handlers by name."""
        queues = [route.queue for route in router.routes]
        metrics = MessagingMetrics(self.registry, service=self.name, queues=queues)
        self.publisher.watch_failures(metrics.count_publish_failure)
        settlement = Settlement(self.publisher, metrics, service=self.name)
        guards = self._guards = FloodGuards(self._settings.flood_limit(), metrics)
        self.remarks["consumption"] = guards.remark
        handlers = Handlers(provided)
        for route in router.routes:
            consumer = self._consumer(route)
            guard = guards.of(route.queue)
            consumption: Consumption
            if route.max_size is None:
                consumption = SingleConsumption(
                    consumer, handlers.single(route), settlement, guard, outage
                )
            else:
                consumption = BatchConsumption(
                    consumer,
                    handlers.batch(route),
                    settlement,
                    guard,
                    outage,
                    max_size=route.max_size,
                )
            metrics.watch_pauses(route.queue, consumption.is_paused)
            self.consumptions.append(consumption)
            self.loops |= {
                f"receive {route.queue}": consumer.run,
                f"consume {route.queue}": consumption.run,
            }

    def disable(self, jobs: Iterable[str]) -> None:
        """Remove registered periodic jobs, so that they do not run."""
        for name in jobs:
            del self.loops[name]

    async def run(self) -> None:
        """Run all parts until ``stop`` is set, then drain within ``SHUTDOWN_GRACE_SECONDS``."""
        self.health["progress"] = StallDetector(
            self._works.activities, self.readiness["database"], time.monotonic
        ).fault
        grace = self._settings.shutdown_grace_seconds
        await run_until(self.stop, self.loops, self.consumptions, grace=grace)

    async def connect(self) -> None:
        """Wait for a database at the right revision and for the broker.

        Raises:
            UnfitDatabaseError: the database is at another revision, or another service's.
            StoppedError: ``stop`` was set first.
        """
        await wait_until_available(
            "database",
            lambda: require_current(self.database, self._package),
            (DatabaseUnavailableError,),
            self.stop,
        )
        url = self._settings.amqp_url.get_secret_value()
        self._connections.publisher = await wait_until_available(
            "broker", lambda: Publisher.connect(url, name=self.name), (PublishError,), self.stop
        )

    def resume(self) -> None:
        """Consume every queue that a flood stopped, and release every source that is held back."""
        if self._guards is not None:
            self._guards.resume()

    def _consumer(self, route: Route) -> Consumer:
        url = self._settings.amqp_url.get_secret_value()
        consumer = Consumer(
            url,
            route.queue,
            prefetch=route.prefetch,
            name=self.name,
            fast_reading=self._settings.amqp_fast_reading,
        )
        self._connections.consumers.append(consumer)
        return consumer


@asynccontextmanager
async def starting(
    name: str,
    settings: ServiceSettings,
    *,
    pool_size: int = POOL_SIZE,
    routes: Callable[[App], Iterable[web.RouteDef]] = lambda _: (),
) -> AsyncIterator[App]:
    """Start the HTTP server, connect to the database and the broker, and yield the service.

    SIGTERM and SIGINT stop it. Leaving the context closes all connections.

    Raises:
        StartError: the HTTP port is taken.
        UnfitDatabaseError: the database is at another revision, or another service's.
        StoppedError: SIGTERM or SIGINT came before the broker and the database were available.
    """
    url = settings.database_url.get_secret_value()
    database = Database(url, name=name, pool_size=pool_size)
    app = App(name, settings, database)
    stop_on_signal(app.stop)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(database.close)
        await stack.enter_async_context(
            serving(
                settings.http_host,
                settings.http_port,
                app.registry,
                health=app.health,
                readiness=app.readiness,
                remarks=app.remarks,
                routes=routes(app),
            )
        )
        await app.connect()
        stack.push_async_callback(app.publisher.close)
        resume_on_signal(app.resume)
        log.info("serving", port=settings.http_port)
        yield app
