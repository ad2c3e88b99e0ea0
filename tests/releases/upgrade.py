"""A platform that begins as the previous release and becomes the code under test."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from yarl import URL

from local_stack.catalogue import (
    BROKER_USERS,
    SERVICES,
    ServicePlan,
    base_environment,
    topology_settings,
)
from local_stack.ports import LOOPBACK, free_ports
from local_stack.server_process import ServerProcess
from nexus_broker_admin.commands import apply_topology
from nexus_broker_admin.management import connect
from nexus_database import migrate
from releases.release import Release
from rig.events import tool_run
from rig.platform import Platform
from rig.vhost import Vhost

BATCH: Final = 20
BETWEEN: Final = 0.1
"""Seconds between batches: some 200 runs a second, enough that any moment is in mid-stream."""


@dataclass
class Upgrade:
    """The broker, the databases (their owners' URLs) and both releases' services."""

    platform: Platform
    owners: dict[str, str]
    release: Release
    tier_scale: float
    old: dict[str, ServerProcess] = field(default_factory=dict)
    published: int = 0

    @property
    def vhost(self) -> Vhost:
        """The vhost of both."""
        return self.platform.vhost

    def start_old(self) -> None:
        """Bring broker and databases to the old release, start its services; wait for them."""
        self.platform.start_stripe()
        topology = ("nexus_messaging.topology_cli", "apply", "--tier-scale", str(self.tier_scale))
        self.release.run(*topology, settings=self._topology_settings())
        for module, url in self.owners.items():
            self.release.run(module, "migrate", settings={"DATABASE_URL": url})
        for plan, port in zip(SERVICES, free_ports(*[None] * len(SERVICES)), strict=True):
            self.old[plan.name] = self._old_service(plan, port)
            self.old[plan.name].launch()
        for service in self.old.values():
            service.await_ready()

    async def move_on(self) -> None:
        """Bring broker and databases to the code under test, as operators do before services."""
        passwords, scale = dict.fromkeys(BROKER_USERS, self.vhost.password), self.tier_scale
        async with connect(self.vhost.management_url) as management:
            await apply_topology(management, passwords, vhost=self.vhost.name, tier_scale=scale)
        for module, url in self.owners.items():
            await migrate(url, module)

    @asynccontextmanager
    async def publishing(self, users: list[UUID]) -> AsyncIterator[None]:
        """Publish runs of ``users``, steadily, while the context lasts."""
        stop = asyncio.Event()
        publisher = asyncio.create_task(self._publish(users, stop))
        try:
            yield
        finally:
            stop.set()
            await publisher

    async def _publish(self, users: list[UUID], stop: asyncio.Event) -> None:
        while not stop.is_set():
            now = datetime.now(UTC)
            runs = [tool_run(users[each % len(users)], time=now) for each in range(BATCH)]
            await self.vhost.publish(*runs)
            self.published += len(runs)
            await asyncio.sleep(BETWEEN)

    def _topology_settings(self) -> dict[str, str]:
        admin, address = self.vhost.broker.admin, URL(self.vhost.broker.management_url)
        url = address.with_user(admin.user).with_password(admin.password)
        settings = topology_settings(str(url), dict.fromkeys(BROKER_USERS, self.vhost.password))
        return settings | {"VHOST": self.vhost.name}

    def _old_service(self, plan: ServicePlan, port: int) -> ServerProcess:
        own = {name: value for name, value in base_environment().items() if name != "PYTHONPATH"}
        service = ServerProcess(
            f"previous {plan.name}",
            [str(self.release.python), *plan.command("serve")[1:]],
            url=f"http://{LOOPBACK}:{port}",
            ready_path="/readyz",
            log=self.platform.directory / f"previous-{plan.name}.log",
            env=own | self.platform.settings_of(plan.module) | {"HTTP_PORT": str(port)},
            grace=15,
            on_start=lambda: None,
        )
        self.platform.stack.callback(service.stop)
        return service
