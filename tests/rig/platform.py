"""The three services as processes of their own, on one vhost, with a local Stripe."""

import asyncio
import secrets
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from sqlalchemy import text

from local_stack.catalogue import SERVICES, ServicePlan, base_environment, emulator_command
from local_stack.ports import LOOPBACK, free_ports
from local_stack.server_process import ServerProcess
from nexus_database import Database
from rig.secrecy import leaks, secrets_in, told_by
from rig.vhost import Vhost
from stripe_emulator.client import EmulatorClient


@dataclass
class Platform:
    """Running services; what they are told can be changed before each start."""

    vhost: Vhost
    databases: Mapping[str, str]
    directory: Path
    settings: dict[str, str] = field(default_factory=dict)
    stripe_key: str = field(default_factory=lambda: f"sk_test_{secrets.token_hex(12)}")
    services: dict[str, ServerProcess] = field(default_factory=dict)
    emulator_url: str = ""
    stack: ExitStack = field(default_factory=ExitStack)
    ports: dict[str, int] = field(default_factory=dict)

    def start_stripe(self) -> None:
        """Start the local Stripe and wait for it."""
        [port] = free_ports(None)
        self.emulator_url = f"http://{LOOPBACK}:{port}"
        command = emulator_command(port, self.stripe_key)
        emulator = self._process(
            "stripe-emulator", command, self.emulator_url, "/_emulator/health", {}
        )
        emulator.launch()
        emulator.await_ready()

    def start(self, *names: str) -> None:
        """Start the local Stripe and the named services (all of them by default); wait for them."""
        if not self.emulator_url:
            self.start_stripe()
        ports = free_ports(*([None] * len(SERVICES)))
        for plan, port in zip(SERVICES, ports, strict=True):
            self.ports[plan.name] = port
            if plan.name in (names or [each.name for each in SERVICES]):
                self.services[plan.name] = self._service(plan, port)
                self.services[plan.name].launch()
        for service in self.services.values():
            service.await_ready()

    def relaunch(self, name: str) -> None:
        """Start a service anew with the settings as they are now; wait until it is ready."""
        self.services[name].stop()
        [plan] = [each for each in SERVICES if each.name == name]
        self.services[name] = self._service(plan, self.ports[name])
        self.services[name].launch()
        self.services[name].await_ready()

    async def command(self, module: str, *arguments: str, given: str = "") -> tuple[int, str]:
        """Run a service's command with its settings; return its exit code and what it printed."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module, *arguments),
            env={**base_environment(), **self.settings_of(module)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate(given.encode())
        assert process.returncode is not None
        assert b"Traceback" not in errors, errors.decode()
        told = {module: output.decode() + errors.decode()}
        assert leaks(told, secrets_in(self.settings_of(module))) == []
        return process.returncode, output.decode()

    async def leaks(self) -> list[str]:
        """Stop the services and name every place in which they told what nobody may read."""
        admin = self.vhost.broker.admin
        secrets = self.vhost.personal | {self.vhost.password, admin.password, self.stripe_key}
        told = await told_by(list(self.services.values()), self.vhost.admin_url)
        return leaks(told, secrets | secrets_in(self.settings))

    def start_second(self, name: str) -> None:
        """Start a further process of a service, as ``"<name> 2"``, and wait for it."""
        [plan] = [each for each in SERVICES if each.name == name]
        [port] = free_ports(None)
        self.services[f"{name} 2"] = self._service(plan, port, name=f"{name} 2")
        self.services[f"{name} 2"].launch()
        self.services[f"{name} 2"].await_ready()

    def stop(self) -> None:
        """Stop everything."""
        self.stack.close()

    def stripe(self) -> EmulatorClient:
        """Return a client of the local Stripe's inspection API."""
        return EmulatorClient(self.emulator_url)

    async def customers(self, count: int) -> list[str]:
        """Make customers at the local Stripe, as somebody with its key may; return their ids."""
        headers = {"Authorization": f"Bearer {self.stripe_key}"}
        url = f"{self.emulator_url}/v1/customers"
        async with aiohttp.ClientSession(headers=headers, raise_for_status=True) as session:
            made = []
            for _ in range(count):
                async with session.post(url) as answer:
                    made.append(str((await answer.json())["id"]))
            return made

    def log(self, name: str) -> str:
        """Return what a service has logged so far."""
        return self.services[name].log.read_text(encoding="utf-8")

    async def rows(self, service: str, query: str) -> list[tuple[object, ...]]:
        """Run a query on a service's database, by the service's role."""
        database = Database(self.databases[service], name="test")
        try:
            result = await database.run(lambda c: c.execute(text(query)))
            return [tuple(row) for row in result]
        finally:
            await database.close()

    def settings_of(self, module: str) -> dict[str, str]:
        """Return what the service of ``module`` is told, but for its HTTP port."""
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

    def _service(self, plan: ServicePlan, port: int, *, name: str | None = None) -> ServerProcess:
        settings = {**self.settings_of(plan.module), "HTTP_PORT": str(port)}
        url = f"http://{LOOPBACK}:{port}"
        return self._process(name or plan.name, plan.command("serve"), url, "/readyz", settings)

    def _process(
        self, name: str, command: list[str], url: str, ready: str, settings: Mapping[str, str]
    ) -> ServerProcess:
        process = ServerProcess(
            name,
            command,
            url=url,
            ready_path=ready,
            log=self.directory / f"{name}.log",
            env={**base_environment(), **settings},
            grace=15,
            on_start=lambda: None,
        )
        self.stack.callback(process.stop)
        return process
