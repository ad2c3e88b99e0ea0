"""Options of the account, which can be changed while it runs."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

MAX_GRACE_SECONDS = 72 * 3600
"""How long an invoice can be a draft at Stripe after its period."""


class InvalidOptionError(ValueError):
    """An option that does not exist, or a value of the wrong kind for it."""


@dataclass(frozen=True, slots=True)
class Options:
    """The account's behaviour where Stripe's own depends on load, delay or plan.

    Attributes:
        call_seconds: How long every POST takes before its effect. Calls can only overlap if this is
            more than zero.
        refuse_overlaps: Answer 409 to a meter event while another of its customer and meter is in
            flight.
        summary_delay_seconds: How long after its arrival an event shows up in summaries.
        error_report_seconds: How long the window of an error report is (10 at Stripe).
        unknown_customers_later: Accept the event of an unknown or deleted customer, and reject it
            in an error report instead: reports of Stripe's users differ on it.
        invoice_grace_seconds: How long an invoice is a draft after its period (an hour at Stripe,
            72 hours at most).
        search_lag_seconds: How far behind the customer search is.
        rate_limits: Whether the limits below are enforced.
        basic_per_second: Calls per second for everything together (25 in a Stripe sandbox).
        search_per_second: Searches per second, beside the basic limit (20 at Stripe).
        webhook_timeout_seconds: How long an endpoint has to answer.
        webhook_retry_scale: Multiplies the waits between attempts, on the account's clock: with
            0.0001 three days are half a minute.
    """

    call_seconds: float = 0.0
    refuse_overlaps: bool = True
    summary_delay_seconds: float = 0.0
    error_report_seconds: float = 10.0
    unknown_customers_later: bool = False
    invoice_grace_seconds: float = 3600.0
    search_lag_seconds: float = 0.0
    rate_limits: bool = False
    basic_per_second: float = 25.0
    search_per_second: float = 20.0
    webhook_timeout_seconds: float = 10.0
    webhook_retry_scale: float = 1.0

    def changed(self, changes: dict[str, Any]) -> "Options":
        """Return these options with some changed.

        Raises:
            InvalidOptionError: For an unknown name, a wrong type or a negative number.
        """
        kinds = {field.name: type(getattr(self, field.name)) for field in fields(self)}
        for name, value in changes.items():
            if name not in kinds:
                raise InvalidOptionError(f"unknown option: {name}")
            if kinds[name] is bool and not isinstance(value, bool):
                raise InvalidOptionError(f"{name} must be true or false")
            if kinds[name] is float and not _is_number(value):
                raise InvalidOptionError(f"{name} must be a number and not negative")
            if name == "invoice_grace_seconds" and value > MAX_GRACE_SECONDS:
                raise InvalidOptionError(f"{name} must be at most {MAX_GRACE_SECONDS}")
        return replace(self, **changes)

    def view(self) -> dict[str, Any]:
        """Return the options as JSON."""
        return asdict(self)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
