"""Makes the processes of one stack: the command, settings, log and grace of each."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from local_stack.catalogue import (
    EMULATOR,
    EVENTS_API,
    EVENTS_API_PORT,
    USAGE_API,
    USAGE_API_PORT,
    ServicePlan,
    StackOptions,
    base_environment,
    emulator_command,
    events_api_command,
    usage_api_command,
    webhook_arguments,
)
from local_stack.keys import StackKeys
from local_stack.ports import LOOPBACK, free_ports
from local_stack.server_process import ServerProcess
from local_stack.urls import Address
from local_stack.usage_page import NAME as USAGE_PAGE
from local_stack.usage_page import UsagePage

# On top of the services' own grace, within which they finish or hand back what they hold.
_EXTRA_GRACE_SECONDS = 10.0


class ProcessFactory:
    """Makes what the options ask for; nothing is started here."""

    def __init__(
        self,
        directory: Path,
        options: StackOptions,
        keys: StackKeys,
        on_start: Callable[[], None],
    ) -> None:
        """Keep what all have in common.

        Args:
            directory: The stack's, which keeps their logs.
            options: What differs from the defaults.
            keys: What they know each other by.
            on_start: Called after each start, when there is one more process.
        """
        self._logs = directory / "logs"
        self._options = options
        self._keys = keys
        self._on_start = on_start

    def emulator(self, port: int, services: Iterable[tuple[ServicePlan, int]]) -> ServerProcess:
        """Make the local Stripe, which sends its events to ``services`` at their ports."""
        webhooks = [
            argument
            for plan, service_port in services
            for argument in webhook_arguments(plan, service_port, self._keys.webhooks)
        ]
        return ServerProcess(
            EMULATOR,
            emulator_command(port, self._keys.stripe, *webhooks),
            url=Address(LOOPBACK, port).http_url,
            ready_path="/_emulator/health",
            log=self._logs / f"{EMULATOR}.log",
            env=base_environment(),
            grace=_EXTRA_GRACE_SECONDS,
            on_start=self._on_start,
        )

    def service(
        self, name: str, plan: ServicePlan, port: int, addresses: Mapping[str, str], stripe_url: str
    ) -> ServerProcess:
        """Make a process of a service; ``addresses`` are those of broker and database."""
        settings = dict(addresses)
        if plan.has_api:
            settings |= self._keys.for_accounts
        if plan.calls_stripe:
            settings["STRIPE_SECRET_KEY"] = self._keys.stripe
            settings["STRIPE_API_BASE"] = stripe_url
        if plan.webhook_events:
            settings["STRIPE_WEBHOOK_SECRET"] = self._keys.webhooks
        settings |= self._options.settings_of(plan)
        return self._process(name, plan.command("serve"), port, settings)

    def events_api(self, amqp_url: str) -> ServerProcess:
        """Make the events API."""
        (port,) = free_ports(EVENTS_API_PORT if self._options.standard_ports else None)
        settings = self._options.process_settings | self._keys.for_apis | {"AMQP_URL": amqp_url}
        return self._process(EVENTS_API, events_api_command(), port, settings)

    def usage_api(self, database_url: str, page: UsagePage | None) -> ServerProcess:
        """Make the usage API, which answers ``page`` if there is one."""
        (port,) = free_ports(USAGE_API_PORT if self._options.standard_ports else None)
        settings = self._options.process_settings | self._keys.for_apis | self._options.plans
        settings["DATABASE_URL"] = database_url
        if page is not None:
            settings["USAGE_TOKEN_KEYS"] = str(page.key_set)
            settings["USAGE_ORIGINS"] = page.origin
            settings["USAGE_COMPONENT_DIR"] = str(page.component)
        settings |= dict((self._options.service_environment or {}).get(USAGE_API, {}))
        return self._process(USAGE_API, usage_api_command(), port, settings)

    def page_server(self, page: UsagePage) -> ServerProcess:
        """Make the server of ``page``."""
        return page.server(self._logs / f"{USAGE_PAGE}.log", on_start=self._on_start)

    def _process(
        self, name: str, command: list[str], port: int, settings: Mapping[str, str]
    ) -> ServerProcess:
        return ServerProcess(
            name,
            command,
            url=Address(LOOPBACK, port).http_url,
            ready_path="/readyz",
            log=self._logs / f"{name.replace(' ', '-')}.log",
            env=base_environment() | {"HTTP_HOST": LOOPBACK, "HTTP_PORT": str(port), **settings},
            grace=self._options.grace_seconds + _EXTRA_GRACE_SECONDS,
            on_start=self._on_start,
        )
