"""The settings of usage-ingest and of its commands."""

from argparse import ArgumentTypeError
from datetime import datetime, timedelta
from typing import Annotated, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    model_validator,
)

from nexus_contracts.meters import Meters
from nexus_contracts.tool_executed import Status
from nexus_database.settings import DatabaseSettings
from nexus_messaging.settings import AmqpUrl, BrokerSettings
from nexus_plans import Plans, PlansError, load
from nexus_plans.parts import ROUTE_SIGN
from nexus_service.command import moment
from nexus_service.settings import ServiceSettings
from usage_ingest.metering import BillingRules
from usage_ingest.windows import DEFAULT_SECONDS, window_seconds

NAME: Final = "usage-ingest"
"""The service's name in logs, in metrics, and on its connections."""

Dimension = Literal["server_id", "tool_name"]


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def _load(value: object) -> object:
    if value is None or value == "":
        return None
    try:
        return load(str(value))
    except PlansError as error:
        raise ValueError(str(error)) from None


def _moment(value: object) -> object:
    """Read a time with its offset; a number is none, as `2026` might be taken for one of 1970."""
    if not isinstance(value, str):
        return value
    if not value:
        return None
    try:
        return moment(value)
    except ArgumentTypeError as error:
        raise ValueError(str(error)) from None


PlansFile = Annotated[Plans | None, BeforeValidator(_load)]


class InvoiceSettings(BaseModel):
    """When Stripe's invoices are final."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    invoice_grace_seconds: Annotated[int, Field(ge=0, le=259_200)] = 3600
    """How long after a billing period's end its invoice still takes usage: Stripe's setting
    "Invoice grace period", an hour by default and three days at most. A report that Stripe accepts
    later is on no invoice."""

    @property
    def invoice_grace(self) -> timedelta:
        """The same as a span of time."""
        return timedelta(seconds=self.invoice_grace_seconds)


class LiveFromSettings(BaseModel):
    """Since when usage is reported by this service."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    reporting_live_from: Annotated[datetime | None, BeforeValidator(_moment)] = None
    """Shadow mode, for a team that moves over from another way of reporting: usage that ended
    before this time (RFC 3339) becomes reports that are never sent, and are compared with Stripe's
    sums. Empty: all usage is reported. The same for every process, and for `adopt`."""


class WaitingAllowedSettings(BaseModel):
    """How long usage may wait for a customer."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    waiting_allowed_seconds: Annotated[int, Field(ge=0)] = 3600
    """How long usage may wait for a customer before the alert UsageWithoutCustomer fires, and
    `usage-ingest waiting` fails. Raise it where users are announced later than that after their
    first run."""

    @property
    def waiting_allowed(self) -> timedelta:
        """The same as a span of time."""
        return timedelta(seconds=self.waiting_allowed_seconds)


class Settings(Meters, InvoiceSettings, LiveFromSettings, WaitingAllowedSettings, ServiceSettings):
    """Windows, meters and what is billed; lists are comma-separated."""

    stripe_meter_dimensions: Annotated[tuple[Dimension, ...], BeforeValidator(_split)] = ()
    """What reports are also grouped by: `server_id`, `tool_name`, comma-separated."""
    report_window_seconds: Annotated[int, AfterValidator(window_seconds)] = DEFAULT_SECONDS
    """The span of event times in one report, which carries the earliest: so much of a billing
    period's first usage may count for the period before. A divisor of 60; `0` reports every run by
    itself."""
    billable_statuses: Annotated[
        tuple[Status, ...], BeforeValidator(_split), Field(min_length=1)
    ] = ("succeeded",)
    """Which runs are billed: `succeeded`, `failed`, comma-separated."""
    plans_file: PlansFile = None
    """Plans, limits, routes and the price table of models (nexus-plans); empty: none, and every run
    counts on `STRIPE_METER_EVENT_NAME`."""
    stripe_summary_lag_seconds: Annotated[int, Field(ge=0, le=86_400)] = 3600
    """How long Stripe may take to show in its sums what it has accepted: what they lack after it is
    a difference. Stripe names no limit: `usage_ingest_stripe_lag_seconds` shows what was seen. Set
    it in stripe-reporter, too."""
    reporting_paused: bool = False
    """`1`: record usage and apply answers, but report and announce nothing; for a restore."""

    def rules(self) -> BillingRules:
        """Return what these settings mean for one event."""
        return BillingRules(
            runs_meter=self.stripe_meter_event_name,
            tokens_meter=self.stripe_tokens_meter_event_name,
            billable_statuses=frozenset(self.billable_statuses),
            plans=self.plans_file,
        )

    @model_validator(mode="after")
    def _agree_on_the_meters(self) -> Self:
        plans = self.plans_file
        if plans is not None and plans.default_meter != self.stripe_meter_event_name:
            raise ValueError(
                "PLANS_FILE: its default_meter must be the meter of STRIPE_METER_EVENT_NAME"
            )
        if plans is not None and self.stripe_tokens_meter_event_name in plans.charged_meters:
            raise ValueError(
                "PLANS_FILE: no plan may count a route or unique tools on the meter of"
                " STRIPE_TOKENS_METER_EVENT_NAME"
            )
        return self


class StatusSettings(DatabaseSettings):
    """The settings of `status`; without AMQP_URL it shows the ledger alone."""

    amqp_url: AmqpUrl | None = None
    management_url: SecretStr | None = None


class ExplainSettings(InvoiceSettings, DatabaseSettings):
    """The settings of `explain`."""

    plans_file: PlansFile = None


class WaitingSettings(WaitingAllowedSettings, DatabaseSettings):
    """The settings of `waiting`."""


class ReplaySettings(DatabaseSettings, BrokerSettings):
    """The settings of `replay`."""


class AdoptSettings(LiveFromSettings, DatabaseSettings):
    """The settings of recovery: those that the lost reports were made with."""

    report_window_seconds: Annotated[int, AfterValidator(window_seconds)] = DEFAULT_SECONDS
    plans_file: PlansFile = None

    def routes(self) -> frozenset[str]:
        """Return the keys of the routes that the file of plans has."""
        names = () if self.plans_file is None else self.plans_file.routes
        return frozenset(ROUTE_SIGN + name for name in names)

    def counting_keys(self) -> frozenset[str]:
        """Return the keys of which each run reads one: none if there are no plans."""
        plans = self.plans_file
        if plans is None:
            return frozenset()
        routes = (name for name, route in plans.routes.items() if route.priced is None)
        return frozenset({plans.default_meter, *(ROUTE_SIGN + name for name in routes)})
