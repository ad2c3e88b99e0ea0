"""The whole stack on one machine: PostgreSQL, RabbitMQ, a local Stripe and the three services."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from local_stack.catalogue import (
    CUSTOMER_PROVISIONER,
    EMULATOR,
    EMULATOR_PORT,
    OPERATOR,
    PLANS_COMMAND,
    POSTGRES_PORT,
    PUBLISHER,
    SERVICES,
    TOPOLOGY,
    VHOST,
    ServicePlan,
    StackOptions,
    base_environment,
    processes,
    topology_command,
    topology_settings,
)
from local_stack.databases import create_databases, create_monitor, create_usage_reader
from local_stack.directory_lock import DirectoryLock
from local_stack.keys import StackKeys
from local_stack.location import return_data
from local_stack.monitoring import Monitoring
from local_stack.ports import free_ports
from local_stack.postgres import PostgresServer
from local_stack.process_factory import ProcessFactory
from local_stack.programs import run_program
from local_stack.rabbitmq import RabbitNode
from local_stack.rabbitmq_settings import RabbitPorts
from local_stack.server_process import LocalServer, ServerProcess
from local_stack.urls import Address, Login
from local_stack.usage_page import UsagePage

_STEP_SECONDS = 120.0


class Stack:
    """The running stack. It always begins empty: the local Stripe keeps its state in memory.

    Attributes:
        postgres: The PostgreSQL server.
        broker: The RabbitMQ node.
        emulator: The local Stripe.
        services: The services' processes by name, such as ``usage-ingest``, ``usage-ingest 2``.
        monitoring: Its monitoring; not running unless the options ask for it.
        stripe_key: The key the local Stripe accepts.
        webhook_secret: What the local Stripe signs its events with.
        api_key: The key of the HTTP APIs: of customer-provisioner, the events and the usage API.
        accounts_key: A further key of customer-provisioner, which says who pays for a user.
        page: The page with the usage component, if the options have one.
    """

    def __init__(
        self,
        directory: Path,
        options: StackOptions,
        lock: DirectoryLock,
        postgres: PostgresServer,
        broker: RabbitNode,
    ) -> None:
        self.postgres = postgres
        self.broker = broker
        self._keys = keys = StackKeys.new()
        self.stripe_key = keys.stripe
        self.webhook_secret = keys.webhooks
        self.api_key = keys.api
        self.accounts_key = keys.accounts
        self._directory = directory
        self._options = options
        self._lock = lock
        self._parts = ExitStack()
        self._databases = create_databases(
            postgres.superuser_url, (plan.module for plan in SERVICES)
        )
        wanted = (EMULATOR_PORT, *(plan.port for plan in SERVICES))
        further = [None] * len(SERVICES) * (options.processes - 1)
        emulator, *ports = free_ports(
            *(wanted if options.standard_ports else [None] * len(wanted)), *further
        )
        factory = ProcessFactory(directory, options, keys, self._write_pids)
        self.emulator = factory.emulator(emulator, zip(SERVICES, ports, strict=False))
        self.services: Mapping[str, ServerProcess] = {
            name: factory.service(
                name, plan, port, self.addresses_of(name, plan), self.emulator_url
            )
            for (name, plan), port in zip(processes(options.processes), ports, strict=True)
        }
        self.events_api = (
            factory.events_api(self.amqp_url(PUBLISHER)) if options.events_api else None
        )
        self.page = self._page() if options.component else None
        self.usage_api = self._usage_api(factory) if options.usage_api else None
        self._page_server = None if self.page is None else factory.page_server(self.page)
        self.monitoring = Monitoring(
            directory, self._write_pids, standard_ports=options.standard_ports
        )

    @classmethod
    def start(
        cls,
        directory: Path,
        options: StackOptions | None = None,
        say: Callable[[str], None] = lambda _line: None,
    ) -> Self:
        """Start everything and return when every part is ready.

        Args:
            directory: What it keeps; what a stack left there before is deleted.
            options: What differs from the defaults.
            say: Called with a line of text after each step.

        Raises:
            DirectoryInUseError: If a stack runs there.
            BrokerUnavailableError: If there is no RabbitMQ to run here.
            PostgresUnavailableError: If there is no PostgreSQL to run here.
            ChildDiedError: If a part ended instead of getting ready.
            ChildNotReadyError: If a part was not ready in time.
            ProgramFailedError: If the topology or a migration failed.
        """
        directory, options = directory.absolute(), options or StackOptions()
        with ExitStack() as parts:
            lock = DirectoryLock.acquire(directory)
            parts.callback(lock.release)
            _delete_servers(directory)
            postgres = parts.enter_context(_start_postgres(directory, options))
            say(f"PostgreSQL {postgres.version} listens on port {postgres.port}")
            broker = parts.enter_context(_start_broker(directory, options))
            _collect_logs(directory, postgres.log, broker.log)
            say(f"RabbitMQ {broker.version} listens on port {broker.ports.amqp}")
            stack = cls(directory, options, lock, postgres, broker)
            parts.callback(stack._stop_servers)
            stack._prepare(say)
            stack._launch(say)
            if options.monitored:
                stack._start_monitoring(say)
            stack._parts = parts.pop_all()
        return stack

    @property
    def emulator_url(self) -> str:
        """The base URL of the local Stripe."""
        return self.emulator.url

    @property
    def operator(self) -> Login:
        """The login for the broker's management UI, which may move dead letters."""
        return Login(OPERATOR, self._keys.broker[OPERATOR])

    @property
    def pids(self) -> dict[str, int]:
        """The running processes by part."""
        return {name: pid for server in self._servers for name, pid in server.pids.items()}

    @property
    def events_api_url(self) -> str:
        """The base URL of the events API, which the options ask for."""
        assert self.events_api is not None
        return self.events_api.url

    @property
    def usage_api_url(self) -> str:
        """The base URL of the usage API, which the options ask for."""
        assert self.usage_api is not None
        return self.usage_api.url

    @property
    def command_settings(self) -> dict[str, dict[str, str]]:
        """The settings with which an operator runs a command on this stack, by the command.

        An administrator's key of the local Stripe is for `plans ensure` alone: the service's other
        commands refuse it.
        """
        management = {"MANAGEMENT_URL": self.broker.management_url_with_login}
        settings = {plan.name: self.services[plan.name].env | management for plan in SERVICES}
        plans = {"STRIPE_ADMIN_KEY": self.stripe_key}
        settings[PLANS_COMMAND] = settings[CUSTOMER_PROVISIONER.name] | plans
        settings[TOPOLOGY] = base_environment() | self._topology_settings
        return settings

    def http_url(self, service: str) -> str:
        """Return the base URL of a service's HTTP side."""
        return self.services[service].url

    def amqp_url(self, user: str) -> str:
        """Build the AMQP URL of one of the broker's users to the stack's vhost."""
        return self.broker.amqp_url(user, self._keys.broker[user], VHOST)

    def database_url(self, service: str, *, owner: bool = False) -> str:
        """Build the URL of a service's database, as the service's role or as the owner's."""
        database = self._databases[service.replace("-", "_")]
        login = database.owner if owner else database.service
        return self.postgres.url(database.name, login.user, login.password)

    def check(self) -> None:
        """Do nothing while every part lives.

        Raises:
            ChildDiedError: If one has ended; the text names it and has the end of its log.
        """
        for server in self._servers:
            server.check()

    def stop(self) -> None:
        """Stop everything, the services first, and release the directory."""
        self._parts.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def _servers(self) -> tuple[LocalServer, ...]:
        stack = (self.broker, self.postgres, self.emulator, *self._processes)
        page = () if self._page_server is None else (self._page_server,)
        return (*stack, *page, *self.monitoring.servers.values())

    @property
    def _processes(self) -> tuple[ServerProcess, ...]:
        """The project's own processes."""
        further = (each for each in (self.events_api, self.usage_api) if each is not None)
        return (*self.services.values(), *further)

    def _write_pids(self) -> None:
        self._lock.write_pids(*self.pids.values())

    def addresses_of(self, _process: str, plan: ServicePlan) -> dict[str, str]:
        """Build the settings that name broker and database to a process of a service."""
        return {
            "AMQP_URL": self.amqp_url(plan.name),
            "DATABASE_URL": self.database_url(plan.name),
        }

    def apply_topology(self) -> None:
        """Bring the broker to its topology, as ``nexus-topology apply`` does at each release.

        Raises:
            ProgramFailedError: If the command failed.
        """
        _run(
            TOPOLOGY,
            topology_command(self._options.tier_scale),
            self._topology_settings,
        )

    @property
    def _topology_settings(self) -> dict[str, str]:
        return topology_settings(self.broker.management_url_with_login, self._keys.broker)

    def _usage_api(self, factory: ProcessFactory) -> ServerProcess:
        reader = create_usage_reader(self.postgres.superuser_url)
        url = self.postgres.url("usage_ingest", reader.user, reader.password)
        return factory.usage_api(url, self.page)

    def _page(self) -> UsagePage:
        assert self._options.component is not None
        standard = self._options.standard_ports
        return UsagePage(self._directory, self._options.component, standard_port=standard)

    def _prepare(self, say: Callable[[str], None]) -> None:
        """Apply the topology and the migrations, all at once."""
        with ThreadPoolExecutor() as pool:
            topology = pool.submit(self.apply_topology)
            tables = {plan.module: pool.submit(self._migrate, plan) for plan in SERVICES}
            topology.result()
            say(f"the broker has its queues, in vhost {VHOST}")
            for database, migration in tables.items():
                migration.result()
                say(f"database {database} has its tables")

    def _migrate(self, plan: ServicePlan) -> None:
        settings = {"DATABASE_URL": self.database_url(plan.name, owner=True)}
        _run(f"{plan.name} migrate", plan.command("migrate"), settings)

    def _launch(self, say: Callable[[str], None]) -> None:
        self.emulator.launch_and_wait()
        say(f"{EMULATOR} is ready on {self.emulator_url}")
        for service in self._processes:
            service.launch()
        if self._options.plans_file is not None:
            self._ensure_plans()
            say(f"{EMULATOR} sells the plans of {self._options.plans_file}")
        for service in self._processes:
            service.await_ready()
            say(f"{service.name} is ready on {service.url}")
        if self._page_server is not None:
            self._page_server.launch_and_wait()

    def _ensure_plans(self) -> None:
        """Make what the plans sell at the local Stripe, as an operator does at Stripe."""
        command = CUSTOMER_PROVISIONER.command("plans", "ensure", "--execute")
        settings = {"STRIPE_ADMIN_KEY": self.stripe_key, "STRIPE_API_BASE": self.emulator_url}
        _run("customer-provisioner plans ensure", command, settings | self._options.plans)

    def _start_monitoring(self, say: Callable[[str], None]) -> None:
        targets = {each.name: Address.of(each.url) for each in self._processes}
        targets["rabbitmq"] = Address.of(self.broker.metrics_url)
        monitor = create_monitor(self.postgres.superuser_url)
        database_url = self.postgres.url("postgres", monitor.user, monitor.password)
        self.monitoring.start(targets, database_url, say)

    def _stop_servers(self) -> None:
        """Stop the services together, then the local Stripe, which they may call until then."""
        self.monitoring.stop()
        if self._page_server is not None:
            self._page_server.stop()
        for service in self._processes:
            service.terminate()
        for service in self._processes:
            service.stop()
        self.emulator.stop()


def _start_postgres(directory: Path, options: StackOptions) -> PostgresServer:
    return PostgresServer.start(
        directory / "postgres",
        POSTGRES_PORT if options.standard_ports else None,
        durable=options.durable,
        wal_segment_mb=options.wal_segment_mb,
    )


def _start_broker(directory: Path, options: StackOptions) -> RabbitNode:
    ports = RabbitPorts.choose(standard=options.standard_ports)
    return RabbitNode.start(directory / "rabbitmq", ports)


def _run(name: str, command: Sequence[str], settings: Mapping[str, str]) -> None:
    environment = base_environment() | dict(settings)
    run_program(command, env=environment, seconds=_STEP_SECONDS, name=name)


def _collect_logs(directory: Path, *logs: Path) -> None:
    """Link the servers' own logs beside the others."""
    (directory / "logs").mkdir(exist_ok=True)
    for log in logs:
        (directory / "logs" / log.name).symlink_to(log)


def _delete_servers(directory: Path) -> None:
    for server in ("postgres", "rabbitmq"):
        # The lock ends the server that a killed stack may have left running on the data.
        lock = DirectoryLock.acquire(directory / server)
        return_data(directory / server)
        lock.release()
        shutil.rmtree(directory / server)
    shutil.rmtree(directory / "logs", ignore_errors=True)
