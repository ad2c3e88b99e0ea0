"""The project's own parts: their names, commands, settings and usual ports."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from local_stack.ports import LOOPBACK
from local_stack.urls import Address

VHOST = "metering"
OPERATOR = "operator"
METER = "tool_call_executed"
EMULATOR = "stripe-emulator"

POSTGRES_PORT = 5432
EMULATOR_PORT = 12111


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """One service: ``usage-ingest`` is its name and its broker user's.

    Attributes:
        name: Its name everywhere outside Python and SQL.
        port: Where its HTTP side listens where that port is free.
        calls_stripe: Whether it gets a key of Stripe.
        webhook_events: The types of Stripe's events that it gets, if any.
        has_api: Whether it gets the keys of the HTTP APIs.
        has_plans: Whether it gets the file of plans, if there is one.
    """

    name: str
    port: int
    calls_stripe: bool
    has_api: bool = False
    webhook_events: tuple[str, ...] = ()
    has_plans: bool = False

    @property
    def module(self) -> str:
        """The Python module, which is also the name of its database and of its role there."""
        return self.name.replace("-", "_")

    def command(self, *action: str) -> list[str]:
        """Build the command that runs ``action``, such as ``serve`` or ``migrate``."""
        return [sys.executable, "-m", self.module, *action]


CUSTOMER_PROVISIONER = ServicePlan(
    "customer-provisioner",
    8081,
    calls_stripe=True,
    has_api=True,
    webhook_events=(
        "customer.subscription.created",
        "customer.subscription.updated",
        "customer.subscription.deleted",
        "customer.updated",
        "customer.deleted",
        "entitlements.active_entitlement_summary.updated",
    ),
    has_plans=True,
)
PLANS_COMMAND: Final = f"{CUSTOMER_PROVISIONER.name} plans"

SERVICES = (
    CUSTOMER_PROVISIONER,
    ServicePlan("usage-ingest", 8082, calls_stripe=False, has_plans=True),
    ServicePlan(
        "stripe-reporter",
        8083,
        calls_stripe=True,
        webhook_events=(
            "v1.billing.meter.error_report_triggered",
            "v1.billing.meter.no_meter_found",
        ),
    ),
)

TOPOLOGY: Final = "nexus-topology"

OPERATORS_PROGRAMS: Final = (*(plan.name for plan in SERVICES), TOPOLOGY)
"""What an operator runs commands of."""


def processes(of_each: int) -> list[tuple[str, ServicePlan]]:
    """Name ``of_each`` processes of each service; the first has the service's own name."""
    first = [(plan.name, plan) for plan in SERVICES]
    return first + [
        (f"{plan.name} {number}", plan) for number in range(2, 1 + of_each) for plan in SERVICES
    ]


EVENTS_API = "events-api"
EVENTS_API_PORT = 8084
PUBLISHER = "publisher"


def events_api_command() -> list[str]:
    """Build the command that runs the events API, a process of usage-ingest's package."""
    return [sys.executable, "-m", "usage_ingest", EVENTS_API]


USAGE_API = "usage-api"
USAGE_API_PORT = 8085


def usage_api_command() -> list[str]:
    """Build the command that runs the usage API, another process of usage-ingest's package."""
    return [sys.executable, "-m", "usage_ingest", USAGE_API]


EXAMPLE_PLANS: Final = Path(__file__).parents[3] / "plans.yaml"
"""The committed plans of an example platform."""

BROKER_USERS = (PUBLISHER, OPERATOR, *(plan.name for plan in SERVICES))


@dataclass(frozen=True, slots=True)
class StackOptions:
    """What may differ from one stack to another.

    Attributes:
        tier_scale: Factor on the waits of the retry tiers; ``0.01`` makes an hour 36 seconds.
        max_calls_per_second: The reporter's limit of calls to Stripe; ``None`` for its default.
        standard_ports: Whether to take the usual ports where they are free.
        monitored: Whether Prometheus scrapes it, where this machine can run one.
        durable: ``False`` trades the database's safety in a power cut for speed.
        grace_seconds: How long the services have to finish when they are stopped.
        service_environment: Further settings of a service, by its name.
        processes: How many processes of each service there are; the second is ``"<name> 2"``.
        wal_segment_mb: The size of the database's log files; ``None`` for its default.
        events_api: Whether the events API runs, too.
        usage_api: Whether the usage API runs, too.
        plans_file: The file of plans; what it sells is made at the local Stripe.
        component: The folder of the built ``<nexus-usage>``, whose page is served; needs
            ``usage_api``.
    """

    tier_scale: float = 1.0
    max_calls_per_second: float | None = None
    standard_ports: bool = False
    monitored: bool = False
    durable: bool = True
    grace_seconds: float = 20.0
    service_environment: Mapping[str, Mapping[str, str]] | None = None
    processes: int = 1
    wal_segment_mb: int | None = None
    events_api: bool = False
    usage_api: bool = False
    plans_file: Path | None = None
    component: Path | None = None

    @property
    def process_settings(self) -> dict[str, str]:
        """The settings that every process gets."""
        return {"SHUTDOWN_GRACE_SECONDS": str(self.grace_seconds), "LOG_FORMAT": "json"}

    @property
    def plans(self) -> dict[str, str]:
        """The setting of processes that have plans."""
        return {} if self.plans_file is None else {"PLANS_FILE": str(self.plans_file)}

    def settings_of(self, plan: ServicePlan) -> dict[str, str]:
        """Build the settings of a service that these options decide."""
        settings = self.process_settings
        if plan.has_plans:
            settings |= self.plans
        if plan.name == "stripe-reporter" and self.max_calls_per_second is not None:
            settings["STRIPE_MAX_CALLS_PER_SECOND"] = str(self.max_calls_per_second)
        return settings | dict((self.service_environment or {}).get(plan.name, {}))


def topology_command(tier_scale: float) -> list[str]:
    """Build the command that brings the broker to the topology."""
    module = "nexus_broker_admin.cli"
    return [sys.executable, "-m", module, "apply", "--tier-scale", str(tier_scale)]


def topology_settings(management_url: str, passwords: Mapping[str, str]) -> dict[str, str]:
    """Build the settings of the topology command; ``passwords`` are the broker users'."""
    settings = {"MANAGEMENT_URL": management_url, "VHOST": VHOST}
    for user, password in passwords.items():
        settings[f"BROKER_PASSWORD_{user.replace('-', '_').upper()}"] = password
    return settings


def webhook_arguments(plan: ServicePlan, port: int, secret: str) -> list[str]:
    """Build the arguments by which the local Stripe sends a service at ``port`` its events.

    Where it is away, they come again within minutes, not within days.
    """
    url = f"{Address(LOOPBACK, port).http_url}/webhooks/stripe"
    types = [each for type_ in plan.webhook_events for each in ("--webhook-event", type_)]
    endpoint = ["--webhook", url, "--webhook-secret", secret, *types]
    return [*endpoint, "--webhook-retry-scale", "0.01"] if types else []


def emulator_command(port: int, key: str, *further: str) -> list[str]:
    """Build the command that runs a local Stripe with the meter the services report to."""
    where = ["--host", LOOPBACK, "--port", str(port)]
    return [
        sys.executable,
        "-m",
        "stripe_emulator",
        "serve",
        *where,
        "--key",
        key,
        "--meter",
        METER,
        *further,
    ]


def base_environment() -> dict[str, str]:
    """Build the environment of every part: no setting, proxy or key of the caller's."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH")
    found = {name: os.environ[name] for name in kept if name in os.environ}
    return {**found, "PYTHONUNBUFFERED": "1"}
