"""What usage-ingest is told from outside."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from nexus_contracts.tool_executed import Status
from nexus_messaging.settings import ServiceSettings
from usage_ingest.metering import BillingRules

Dimension = Literal["server_id", "tool_name"]


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


class Settings(ServiceSettings):
    """Windows, meters and what is billed; lists are comma-separated.

    ``stripe_tokens_meter_event_name`` names a second meter that sums ``token_count``; empty: none.
    """

    stripe_meter_event_name: str = Field("tool_call_executed", min_length=1, max_length=100)
    stripe_tokens_meter_event_name: str = Field("", max_length=100)
    stripe_meter_dimensions: Annotated[tuple[Dimension, ...], BeforeValidator(_split)] = ()
    report_window_seconds: Literal[0, 1, 2, 5, 10, 20, 30, 60] = 10
    billable_statuses: Annotated[
        tuple[Status, ...], BeforeValidator(_split), Field(min_length=1)
    ] = ("succeeded",)

    def rules(self) -> BillingRules:
        """Return what these settings mean for one event."""
        return BillingRules(
            runs_meter=self.stripe_meter_event_name,
            tokens_meter=self.stripe_tokens_meter_event_name or None,
            billable_statuses=frozenset(self.billable_statuses),
        )
