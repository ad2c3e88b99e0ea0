"""Summaries: the sums of one customer's events for one meter, by window of time."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from stripe_emulator.errors import StripeError, invalid_parameter, no_such
from stripe_emulator.events import MeterEvent
from stripe_emulator.ids import derived_id
from stripe_emulator.meters import Meter
from stripe_emulator.pages import page
from stripe_emulator.parameters import PAGING, Choice, Integer, Parameters, Text

WINDOW_SECONDS = {"minute": 60, "hour": 3600, "day": 86400}
LIST_SUMMARIES = Parameters(
    {
        **PAGING,
        "customer": Text(),
        "start_time": Integer(minimum=0),
        "end_time": Integer(minimum=0),
        "value_grouping_window": Choice(("day", "hour")),
    },
    ("customer", "end_time", "start_time"),
)


@dataclass(frozen=True, slots=True)
class Span:
    """A range of event times in unix seconds: ``start`` belongs to it, ``end`` does not."""

    start: int
    end: int
    grouping: str | None

    @classmethod
    def of(cls, params: dict[str, Any]) -> "Span":
        """Read the range of a summary request.

        Raises:
            StripeError: 400 when a time does not lie on a boundary of the grouping window (of the
                minute, where there is none), or the range is empty.
        """
        span = cls(params["start_time"], params["end_time"], params.get("value_grouping_window"))
        unit = span.grouping or "minute"
        for name, moment in (("start_time", span.start), ("end_time", span.end)):
            if moment % WINDOW_SECONDS[unit]:
                raise _misaligned(name, unit)
        if span.end <= span.start:
            raise invalid_parameter("end_time", "end_time must be after start_time.")
        return span

    @property
    def window_seconds(self) -> int:
        """Return how long one summary's window is."""
        return self.end - self.start if self.grouping is None else WINDOW_SECONDS[self.grouping]

    def window_of(self, timestamp: int) -> int | None:
        """Return the start of the window a time lies in, None when it lies outside the range."""
        if not self.start <= timestamp < self.end:
            return None
        return timestamp - (timestamp - self.start) % self.window_seconds


def list_summaries(
    meter: Meter, customer: str, events: Sequence[MeterEvent], params: dict[str, Any]
) -> dict[str, Any]:
    """Return one page of ``billing.meter_event_summary`` objects, the newest window first.

    Args:
        meter: The meter, which has the formula.
        customer: The customer's id.
        events: Its events for that meter that are old enough to be visible.
        params: Read by ``LIST_SUMMARIES``.

    Windows without an event are left out.
    """
    span = Span.of(params)
    windows: dict[int, list[MeterEvent]] = {}
    for event in events:
        start = span.window_of(event.timestamp)
        if start is not None:
            windows.setdefault(start, []).append(event)
    views = [
        _view(meter, customer, (start, start + span.window_seconds), aggregate(meter, inside))
        for start, inside in sorted(windows.items(), reverse=True)
    ]
    return page(views, f"/v1/billing/meters/{meter.id}/event_summaries", "summary", params)


def aggregate(meter: Meter, events: Sequence[MeterEvent]) -> Decimal:
    """Add up events by the meter's formula: ``sum``, ``count`` or ``last`` (by event time).

    On a meter with an event time window the values are totals of that window already: of each
    window only the newest arrival counts.
    """
    if meter.event_time_window is not None:
        size = WINDOW_SECONDS[meter.event_time_window]
        events = list({event.timestamp // size: event for event in events}.values())
    if meter.formula == "count":
        return Decimal(len(events))
    if meter.formula == "last":
        # max() keeps the first of equals, so the reversed order lets the later arrival win.
        return (
            max(reversed(events), key=lambda event: event.timestamp).value if events else Decimal(0)
        )
    return sum((event.value for event in events), Decimal(0))


def number(value: Decimal) -> int | float:
    """Return the JSON number of a value: whole where it is whole."""
    return int(value) if value == value.to_integral_value() else float(value)


def unknown_customer(customer: str) -> StripeError:
    """Return the error of a summary for a customer that does not exist."""
    return no_such("customer", customer, "customer", status=400)


def _view(meter: Meter, customer: str, window: tuple[int, int], value: Decimal) -> dict[str, Any]:
    start, end = window
    return {
        "id": derived_id("mtrusg", meter.id, customer, start, end),
        "object": "billing.meter_event_summary",
        "aggregated_value": number(value),
        "end_time": end,
        "livemode": False,
        "meter": meter.id,
        "start_time": start,
    }


def _misaligned(param: str, unit: str) -> StripeError:
    return invalid_parameter(
        param, f"{param} must align with {unit} boundaries (UTC) for this request."
    )
