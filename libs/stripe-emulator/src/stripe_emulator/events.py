"""Meter events: the rules for one, and the identifiers of the last 24 hours."""

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from stripe_emulator.errors import StripeError, duplicate_event, no_such, refused
from stripe_emulator.meters import Meter
from stripe_emulator.parameters import Choice, Integer, Parameters, Text, TextMap

UNIQUE_SECONDS = 24 * 3600
MAX_AGE_SECONDS = 35 * 24 * 3600
AHEAD_SECONDS = 5 * 60
MAX_DIGITS = 15
_VALUE = re.compile(r"-?[0-9]+(\.[0-9]+)?")

CREATE_EVENT = Parameters(
    {
        "event_name": Text(100),
        "identifier": Text(100),
        "payload": TextMap(100),
        "timestamp": Integer(),
    },
    ("event_name", "payload"),
)

CANCEL_EVENT = Parameters(
    {
        "cancel": Parameters({"identifier": Text(100)}, ("identifier",)),
        "event_name": Text(100),
        "type": Choice(("cancel",)),
    },
    ("cancel", "event_name", "type"),
)


@dataclass(frozen=True, slots=True)
class MeterEvent:
    """One accepted event; ``timestamp`` and ``received`` are unix seconds."""

    identifier: str
    event_name: str
    meter: str
    customer: str
    value: Decimal
    timestamp: int
    received: float
    payload: dict[str, str]

    def view(self) -> dict[str, Any]:
        """Return the ``billing.meter_event`` object: it has no id and can't be fetched again."""
        return {
            "object": "billing.meter_event",
            "created": int(self.received),
            "event_name": self.event_name,
            "identifier": self.identifier,
            "livemode": False,
            "payload": self.payload,
            "timestamp": self.timestamp,
        }


class MeterEvents:
    """The counted events by meter and customer, and the accepted ones of 24 hours by identifier."""

    def __init__(self) -> None:
        self._recent: dict[str, MeterEvent] = {}
        self._counted: dict[tuple[str, str], list[MeterEvent]] = {}

    def accept(self, event: MeterEvent) -> None:
        """Take an event, whose identifier is in use from now on, whether it is counted or not.

        After 24 hours an identifier can be used again, and the same event is then counted twice:
        Stripe promises no more, so a client that must not bill twice has to keep its own record.

        Raises:
            StripeError: 400 while the identifier is in use.
        """
        self._delete_old(event.received)
        if event.identifier in self._recent:
            raise duplicate_event(event.identifier)
        self._recent[event.identifier] = event

    def count(self, event: MeterEvent) -> None:
        """Add an accepted event to the sums."""
        self._counted.setdefault((event.meter, event.customer), []).append(event)

    def cancel(self, event_name: str, identifier: str, now: float) -> None:
        """Cancel an event that was received within the last 24 hours.

        Its identifier stays in use.

        Raises:
            StripeError: 400 if there is no such event, or it is already cancelled.
        """
        self._delete_old(now)
        event = self._recent.get(identifier)
        counted = [] if event is None else self.of(event.meter, event.customer)
        if event is None or event.event_name != event_name or event not in counted:
            message = f"No event of the last 24 hours can be cancelled by identifier {identifier}."
            raise refused(message, "cancel[identifier]")
        counted.remove(event)

    def of(self, meter: str, customer: str) -> list[MeterEvent]:
        """Return the counted events of one meter and customer in the order of their arrival."""
        return self._counted.get((meter, customer), [])

    def by_meter_and_customer(self) -> dict[tuple[str, str], list[MeterEvent]]:
        """Return all counted events, keyed by the ids of meter and customer."""
        return dict(self._counted)

    def _delete_old(self, now: float) -> None:
        # Insertion order is age. After the clock was set back an identifier is kept longer, as
        # "at least 24 hours" allows.
        while self._recent:
            identifier, event = next(iter(self._recent.items()))
            if now - event.received < UNIQUE_SECONDS:
                return
            del self._recent[identifier]


def require_timely(timestamp: int, now: float) -> None:
    """Refuse a time more than 35 days in the past or more than 5 minutes ahead."""
    if timestamp < now - MAX_AGE_SECONDS:
        raise refused(
            "The event timestamp cannot be more than 35 days in past. "
            "Please use a timestamp within the past 35 days.",
            "timestamp",
        )
    if timestamp > now + AHEAD_SECONDS:
        raise refused(
            "The event timestamp cannot be more than 5 minutes in the future.", "timestamp"
        )


def require_meter(meter: Meter | None, event_name: str) -> Meter:
    """Refuse an event name that no active meter has."""
    if meter is None:
        message = f'No active meter found for event name "{event_name}".'
        raise refused(message, "event_name")
    return meter


def customer_of(meter: Meter, payload: dict[str, str]) -> str:
    """Return the customer a payload names under the meter's key; 400 when it names none."""
    customer = payload.get(meter.customer_key)
    if not customer:
        message = f"The event payload has no customer under the key '{meter.customer_key}'."
        raise refused(message, f"payload[{meter.customer_key}]")
    return customer


def unknown_customer(meter: Meter, customer: str) -> StripeError:
    """Return the error of an event for a customer that does not exist or was deleted."""
    return no_such("customer", customer, f"payload[{meter.customer_key}]", status=400)


def value_of(meter: Meter, payload: dict[str, str]) -> Decimal:
    """Return the number under the meter's key in a payload; a counting meter needs none.

    Raises:
        StripeError: 400 for a missing value, one that is no decimal number, or one with more than
            15 significant digits.
    """
    param = f"payload[{meter.value_key}]"
    written = payload.get(meter.value_key)
    if written is None and meter.formula == "count":
        return Decimal(1)
    if written is None:
        raise refused(f"The event payload has no value under the key '{meter.value_key}'.", param)
    if len(written) > 100 or not _VALUE.fullmatch(written):  # noqa: PLR2004 - a bound on the work
        raise refused(f"Invalid value in the event payload: {written[:20]}", param)
    if significant_digits(written) > MAX_DIGITS:
        message = f"The value in the event payload has more than {MAX_DIGITS} digits."
        raise refused(message, param)
    return Decimal(written)


def significant_digits(written: str) -> int:
    """Count the digits of a plain decimal number from the first that is not zero.

    ``-00120.50`` has five: trailing zeros count, which is the stricter of two possible readings.
    """
    return max(1, len(written.lstrip("-").replace(".", "").lstrip("0")))
