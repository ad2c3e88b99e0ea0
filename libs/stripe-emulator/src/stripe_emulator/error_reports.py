"""Error reports: which accepted meter events were rejected later, by window and in samples.

Stripe validates some of a meter event only after its answer. What it then rejects within a window
of ten seconds is one thin event per meter, made two seconds after the window's end. Its data counts
the errors and names a few of them by the idempotency keys of their requests
(https://docs.stripe.com/api/v2/core/events/object; the codes:
https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from stripe_emulator.clock import Clock
from stripe_emulator.thin_events import thin_event, timestamp

ERROR_REPORT: Final = "v1.billing.meter.error_report_triggered"
NO_METER_FOUND: Final = "v1.billing.meter.no_meter_found"
DELAY = 0.2
"""Between a window's end and its report, in windows: two seconds in Stripe's published examples."""

MAX_SAMPLES = 10
"""Samples that a report names of one code; how many Stripe names is not documented."""

NO_METER: Final = "no_meter"
MESSAGES: Final[Mapping[str, str]] = {
    "archived_meter": "The meter with event_name {event_name} is archived.",
    "meter_event_customer_not_found": "Customer {customer} not found.",
    "meter_event_dimension_count_too_high": "The meter has too many combinations of dimensions.",
    "meter_event_invalid_value": "The value in the payload is invalid.",
    "meter_event_no_customer_defined": (
        "Customer mapping key stripe_customer_id not found in payload."
    ),
    "meter_event_value_not_found": "Value key value not found in payload.",
    "meter_event_value_too_many_digits": "The value in the payload has too many digits.",
    "missing_dimension_payload_keys": "The payload lacks keys of the meter's dimensions.",
    NO_METER: "No meter was found matching event_name {event_name}.",
    "timestamp_in_future": "The timestamp is too far in the future.",
    "timestamp_too_far_in_past": "The timestamp is too far in the past.",
}
"""The codes that Stripe documents, with what a sample says.

Of ``meter_event_no_customer_defined`` and ``no_meter`` Stripe has published the message; the others
are only likely.
"""


@dataclass(frozen=True, slots=True)
class Rejection:
    """One meter event that was accepted and is rejected ``at`` unix seconds.

    Attributes:
        meter: The meter's id; None if it is said that there is none.
        code: One of ``MESSAGES``.
        message: What a sample says of it.
        request: What a sample names: the idempotency key of the request.
        sampled: Whether it may be a sample.
    """

    at: float
    meter: str | None
    code: str
    message: str
    request: str
    sampled: bool


@dataclass(slots=True)
class _Window:
    meter: str | None
    start: float
    end: float
    rejections: list[Rejection] = field(default_factory=list)

    @property
    def due(self) -> float:
        return self.end + DELAY * (self.end - self.start)


class ErrorReports:
    """The rejections whose window is not over yet; ``settle`` reports the others.

    Args:
        clock: The account's.
        add: Gets each thin event.
        seconds: Returns how long a new window is.
    """

    def __init__(
        self, clock: Clock, add: Callable[[dict[str, Any]], None], seconds: Callable[[], float]
    ) -> None:
        self._clock = clock
        self._add = add
        self._seconds = seconds
        self._open: dict[tuple[str | None, float], _Window] = {}

    def note(self, rejection: Rejection) -> None:
        """Put a rejection into the window of its time."""
        seconds = self._seconds()
        start = rejection.at // seconds * seconds
        window = _Window(rejection.meter, start, start + seconds)
        self._open.setdefault((rejection.meter, start), window).rejections.append(rejection)

    def settle(self) -> None:
        """Report every window that has been over for long enough, the earliest first."""
        now = self._clock.now()
        over = [key for key, window in self._open.items() if window.due <= now]
        for key in sorted(over, key=lambda key: key[1]):
            self._add(_report(self._open.pop(key)))


def _report(window: _Window) -> dict[str, Any]:
    by_code: dict[str, list[Rejection]] = {}
    for rejection in window.rejections:
        by_code.setdefault(rejection.code, []).append(rejection)
    count = len(window.rejections)
    data = {
        "developer_message_summary": (
            "There is 1 invalid event" if count == 1 else f"There are {count} invalid events"
        ),
        "reason": {
            "error_count": count,
            "error_types": [_error_type(code, same) for code, same in by_code.items()],
        },
        "validation_end": timestamp(window.end),
        "validation_start": timestamp(window.start),
    }
    if window.meter is None:
        return thin_event(window.due, NO_METER_FOUND, data, None)
    url = f"/v1/billing/meters/{window.meter}"
    related = {"id": window.meter, "type": "billing.meter", "url": url}
    return thin_event(window.due, ERROR_REPORT, data, related)


def _error_type(code: str, rejections: Sequence[Rejection]) -> dict[str, Any]:
    samples = [
        {"error_message": each.message, "request": {"identifier": each.request}}
        for each in rejections
        if each.sampled
    ]
    return {"code": code, "error_count": len(rejections), "sample_errors": samples[:MAX_SAMPLES]}
