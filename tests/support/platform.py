"""The three services as processes of their own, on one vhost, with a local Stripe."""

import json
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from sqlalchemy import text

from local_stack.catalogue import (
    EMULATOR,
    SERVICES,
    ServicePlan,
    base_environment,
    emulator_command,
)
from local_stack.ports import LOOPBACK, free_ports
from local_stack.server_process import ServerProcess
from local_stack.servers import Broker, Database
from stripe_emulator.client import EmulatorClient
from support.commands import in_a_pipe
from support.databases import MODULES, make_database, opened
from support.leak_check import leaks, outputs_of, secrets_in
from support.vhost import Vhost, open_vhost


@dataclass
class Platform:
    """Running services; ``settings`` may be changed before each start.

    ``databases`` holds the services' URLs by package, ``services`` the processes by name.
    """

    vhost: Vhost
    databases: Mapping[str, str]
    directory: Path
    settings: dict[str, str] = field(default_factory=dict)
    stripe_key: str = field(default_factory=lambda: f"sk_test_{secrets.token_hex(12)}")
    services: dict[str, ServerProcess] = field(default_factory=dict)
    emulator: ServerProcess | None = None
    emulator_url: str = ""
    stack: ExitStack = field(default_factory=ExitStack)
    ports: dict[str, int] = field(default_factory=dict)

    def start_stripe(self) -> None:
        """Start the local Stripe and wait for it."""
        [port] = free_ports(None)
        command = emulator_command(port, self.stripe_key)
        self.emulator = self.process(EMULATOR, command, port, {}, ready="/_emulator/health")
        self.emulator_url = self.emulator.url
        self.emulator.launch()
        self.emulator.await_ready()

    def start(self, *names: str) -> None:
        """Start the local Stripe and the named services (all of them by default); wait for them."""
        if not self.emulator_url:
            self.start_stripe()
        ports = free_ports(*([None] * len(SERVICES)))
        for plan, port in zip(SERVICES, ports, strict=True):
            self.ports[plan.name] = port
            if plan.name in (names or [each.name for each in SERVICES]):
                self._launch(plan, port)
        for service in self.services.values():
            service.await_ready()

    def start_second(self, name: str) -> None:
        """Start a second process of a service, as ``"<name> 2"``, and wait for it."""
        [port] = free_ports(None)
        self._launch(_plan(name), port, f"{name} 2").await_ready()

    def start_several(self, name: str, count: int) -> None:
        """Start ``count`` processes of a service together, named as in ``start_second``."""
        for number, port in enumerate(free_ports(*([None] * count)), 1):
            self._launch(_plan(name), port, f"{name} {number}" if number > 1 else name)
        for service in self.services.values():
            service.await_ready()

    def relaunch(self, name: str) -> None:
        """Restart a service with the settings as they are now; wait until it is ready."""
        self.services[name].stop()
        self._launch(_plan(name), self.ports[name]).await_ready()

    def stop(self) -> None:
        """Stop everything."""
        self.stack.close()

    async def command(self, module: str, *arguments: str, given: str = "") -> tuple[int, str]:
        """Run a service's command with its settings; return its exit code and output."""
        settings = self.settings_of(module)
        ended = await in_a_pipe(module, *arguments, given=given, **settings)
        assert "Traceback" not in ended.errors, ended.errors
        assert leaks({module: ended.output}, secrets_in(settings)) == []
        return ended.code, ended.raw

    async def run_command(self, module: str, *arguments: str) -> None:
        """Run a service's command, which must succeed."""
        code, output = await self.command(module, *arguments)
        assert code == 0, output

    async def leaks(self) -> list[str]:
        """Stop the services and name every output of theirs that holds a secret."""
        admin = self.vhost.broker.admin
        known = self.vhost.personal | {self.vhost.password, admin.password, self.stripe_key}
        outputs = await outputs_of(list(self.services.values()), self.vhost.admin_url)
        return leaks(outputs, known | secrets_in(self.settings))

    def stripe(self) -> EmulatorClient:
        """Return a client of the local Stripe's inspection API."""
        return EmulatorClient(self.emulator_url)

    async def customers(self, count: int) -> list[str]:
        """Make customers at the local Stripe through its API; return their ids."""
        return [await self.make_at_stripe("customers") for _ in range(count)]

    async def make_at_stripe(self, kind: str, **form: str) -> str:
        """Make an object at the local Stripe through its API; return its id."""
        async with (
            self._stripe_session() as session,
            session.post(f"/v1/{kind}", data=form) as answer,
        ):
            return str((await answer.json())["id"])

    async def delete_customer(self, customer: str) -> None:
        """Delete a customer at the local Stripe, as in Stripe's dashboard."""
        async with self._stripe_session() as session, session.delete(f"/v1/customers/{customer}"):
            pass

    def log(self, name: str) -> str:
        """Return the log of a service so far."""
        return self.services[name].log.read_text(encoding="utf-8")

    async def get(self, name: str, path: str) -> tuple[int, str]:
        """Get a path of a service's HTTP server; return the status and the body."""
        url = f"{self.services[name].url}/{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return answer.status, await answer.text()

    async def readiness(self, name: str) -> dict[str, Any]:
        """Return the body of a service's `/readyz`."""
        _, body = await self.get(name, "readyz")
        report: dict[str, Any] = json.loads(body)
        return report

    async def rows(self, service: str, query: str) -> list[tuple[object, ...]]:
        """Run a query on a service's database, by the service's role."""
        async with opened(self.databases[service]) as database:
            result = await database.run(lambda c: c.execute(text(query)))
            return [tuple(row) for row in result]

    async def number(self, service: str, query: str) -> int:
        """Return the one number that a query selects."""
        [[number]] = await self.rows(service, query)
        return int(str(number))

    def settings_of(self, module: str) -> dict[str, str]:
        """Return the settings of the service of ``module``, but for its HTTP port."""
        return {
            "AMQP_URL": self.vhost.url(module.replace("_", "-")),
            "DATABASE_URL": self.databases[module],
            "HTTP_HOST": LOOPBACK,
            "SHUTDOWN_GRACE_SECONDS": "8",
            "STRIPE_SECRET_KEY": self.stripe_key,
            "STRIPE_API_BASE": self.emulator_url,
            "STRIPE_MAX_CALLS_PER_SECOND": "300",
            "REPORT_WINDOW_SECONDS": "1",
            **self.settings,
        }

    def process(
        self,
        name: str,
        command: list[str],
        port: int,
        environment: Mapping[str, str],
        *,
        ready: str = "/readyz",
    ) -> ServerProcess:
        """Return a process that is stopped with the platform; it has yet to be launched."""
        process = ServerProcess(
            name,
            command,
            url=f"http://{LOOPBACK}:{port}",
            ready_path=ready,
            log=self.directory / f"{name}.log",
            env={**base_environment(), **environment},
            grace=15,
            on_start=lambda: None,
        )
        self.stack.callback(process.stop)
        return process

    def _launch(self, plan: ServicePlan, port: int, name: str | None = None) -> ServerProcess:
        name = name or plan.name
        environment = {**self.settings_of(plan.module), "HTTP_PORT": str(port)}
        self.services[name] = self.process(name, plan.command("serve"), port, environment)
        self.services[name].launch()
        return self.services[name]

    def _stripe_session(self) -> aiohttp.ClientSession:
        headers = {"Authorization": f"Bearer {self.stripe_key}"}
        return aiohttp.ClientSession(self.emulator_url, headers=headers, raise_for_status=True)


@asynccontextmanager
async def standalone_platform(
    broker: Broker,
    postgres: Database,
    directory: Path,
    settings: Mapping[str, str],
    modules: Sequence[str] = MODULES,
) -> AsyncIterator[Platform]:
    """Yield a platform for a benchmark: databases anew, and retry tiers with their real waits."""
    password = secrets.token_hex(16)
    databases = {module: await make_database(postgres, module, password) for module in modules}
    async with open_vhost(broker, password, tier_scale=1.0) as vhost:
        platform = Platform(vhost, databases, directory, settings=dict(settings))
        try:
            yield platform
        finally:
            platform.stop()


def _plan(name: str) -> ServicePlan:
    [plan] = [each for each in SERVICES if each.name == name]
    return plan
