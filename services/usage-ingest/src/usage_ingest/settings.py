"""What usage-ingest is told from outside."""

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from nexus_contracts.tool_executed import Status
from nexus_messaging.settings import ServiceSettings
from usage_ingest.metering import BillingRules

MINUTE: Final = 60

Dimension = Literal["server_id", "tool_name"]


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def _fits_a_minute(seconds: int) -> int:
    if seconds and (seconds < 0 or MINUTE % seconds):
        raise ValueError("must be 0 (no windows) or divide a minute, so that none spans two")
    return seconds


class Settings(ServiceSettings):
    """Windows, meters and what is billed; lists are comma-separated."""

    stripe_meter_event_name: str = Field("tool_call_executed", min_length=1, max_length=100)
    """The meter that counts tool runs."""
    stripe_tokens_meter_event_name: str = Field("", max_length=100)
    """A second meter, which sums `token_count`; empty: tokens are not billed."""
    stripe_meter_dimensions: Annotated[tuple[Dimension, ...], BeforeValidator(_split)] = ()
    """What reports are grouped by besides: `server_id`, `tool_name`, comma-separated."""
    report_window_seconds: Annotated[int, AfterValidator(_fits_a_minute)] = 10
    """The span of event times in one report: a divisor of 60; `0` reports every run by itself."""
    billable_statuses: Annotated[
        tuple[Status, ...], BeforeValidator(_split), Field(min_length=1)
    ] = ("succeeded",)
    """Which runs are billed: `succeeded`, `failed`, comma-separated."""

    def rules(self) -> BillingRules:
        """Return what these settings mean for one event."""
        return BillingRules(
            runs_meter=self.stripe_meter_event_name,
            tokens_meter=self.stripe_tokens_meter_event_name or None,
            billable_statuses=frozenset(self.billable_statuses),
        )
