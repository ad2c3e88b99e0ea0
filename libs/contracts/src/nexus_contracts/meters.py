"""The meters that reports are for: two names on which the ledger and the reporter must agree."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationInfo, field_validator

from nexus_contracts.fields import MeterName


def _none_if_empty(value: object) -> object:
    return None if value == "" else value


_Optional = Annotated[MeterName | None, BeforeValidator(_none_if_empty)]


class Meters(BaseModel):
    """The event names of Stripe's meters, as settings of both services."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    stripe_meter_event_name: MeterName = "tool_call_executed"
    """The meter that counts tool runs."""
    stripe_tokens_meter_event_name: _Optional = None
    """A second meter, which sums `token_count`; empty: tokens are not billed."""

    @field_validator("stripe_tokens_meter_event_name")
    @classmethod
    def _not_that_of_runs(cls, name: str | None, info: ValidationInfo) -> str | None:
        # A run has one reading for each meter: tokens would take the place of the run itself.
        if name is not None and name == info.data.get("stripe_meter_event_name"):
            raise ValueError("must be another meter than STRIPE_METER_EVENT_NAME")
        return name

    @property
    def meters(self) -> tuple[str, ...]:
        """Return the event names of the meters that reports are for."""
        names = (self.stripe_meter_event_name, self.stripe_tokens_meter_event_name)
        return tuple(name for name in names if name is not None)
