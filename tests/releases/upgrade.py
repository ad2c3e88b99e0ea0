"""A platform that is upgraded from the previous release to the code under test."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final
from uuid import UUID

from local_stack.catalogue import (
    BROKER_USERS,
    SERVICES,
    ServicePlan,
    topology_settings,
)
from local_stack.ports import free_ports
from local_stack.server_process import ServerProcess
from nexus_broker_admin.commands import apply_topology
from nexus_broker_admin.management import connect
from nexus_database import migrate
from releases.release import Release
from support.events import tool_run
from support.platform import Platform
from support.vhost import Vhost
from support.waiting import repeated

BATCH: Final = 20
BETWEEN: Final = 0.1
"""Seconds between batches: some 200 runs a second, so that work is always in progress."""


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
        """Bring broker and databases to the previous release, start its services; wait for them."""
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

    async def upgrade_servers(self) -> None:
        """Bring broker and databases to the code under test, as operators do before services."""
        passwords, scale = dict.fromkeys(BROKER_USERS, self.vhost.password), self.tier_scale
        async with connect(self.vhost.management_url) as management:
            await apply_topology(management, passwords, vhost=self.vhost.name, tier_scale=scale)
        for module, url in self.owners.items():
            await migrate(url, module)

    @asynccontextmanager
    async def publishing(self, users: list[UUID]) -> AsyncIterator[None]:
        """Publish runs of ``users`` steadily while the context lasts."""
        async with repeated(partial(self._publish, users), every=BETWEEN):
            yield

    async def _publish(self, users: list[UUID]) -> None:
        runs = [tool_run(users[each % len(users)]) for each in range(BATCH)]
        await self.vhost.publish(*runs)
        self.published += len(runs)

    def _topology_settings(self) -> dict[str, str]:
        passwords = dict.fromkeys(BROKER_USERS, self.vhost.password)
        settings = topology_settings(self.vhost.management_url, passwords)
        return settings | {"VHOST": self.vhost.name}

    def _old_service(self, plan: ServicePlan, port: int) -> ServerProcess:
        environment = self.platform.settings_of(plan.module) | {"HTTP_PORT": str(port)}
        environment["PYTHONPATH"] = ""  # nothing of the code under test
        command = [str(self.release.python), *plan.command("serve")[1:]]
        return self.platform.process(f"previous {plan.name}", command, port, environment)
