"""Validation after the answer: which accepted meter events are not counted, and their reports."""

from dataclasses import asdict, dataclass
from typing import Any, Final

from stripe_emulator.error_reports import MESSAGES, NO_METER, ErrorReports, Rejection
from stripe_emulator.event_faults import EventFault, EventFaultKind, EventFaults
from stripe_emulator.events import MeterEvent

_UNKNOWN_CUSTOMER: Final = EventFault(EventFaultKind.REJECTED, "meter_event_customer_not_found")


@dataclass(frozen=True, slots=True)
class Uncounted:
    """An accepted event that is not counted, why, and by which key a report may name it."""

    event: MeterEvent
    kind: EventFaultKind
    code: str | None
    idempotency_key: str | None
    sampled: bool

    def view(self) -> dict[str, Any]:
        """Return it as JSON."""
        described = asdict(self)
        return {
            **self.event.view(),
            "meter": self.event.meter,
            "customer": self.event.customer,
            **{name: value for name, value in described.items() if name != "event"},
        }


class LaterValidation:
    """Decides of each accepted event whether it is counted, by faults and by its customer."""

    def __init__(self, reports: ErrorReports) -> None:
        self.faults = EventFaults()
        self.reports = reports
        self._uncounted: list[Uncounted] = []

    def passes(
        self, event: MeterEvent, idempotency_key: str | None, *, customer_exists: bool
    ) -> bool:
        """Return whether an event is counted; what is rejected will be in an error report."""
        chosen = self.faults.choose(event) if customer_exists else (_UNKNOWN_CUSTOMER, True)
        if chosen is None:
            return True
        fault, sampled = chosen
        rejected = fault.kind is EventFaultKind.REJECTED
        code = fault.code if rejected else None
        sampled = rejected and sampled
        self._uncounted.append(Uncounted(event, fault.kind, code, idempotency_key, sampled))
        if rejected:
            self.reports.note(_rejection(event, fault, idempotency_key, sampled=sampled))
        return False

    def listed(self) -> list[dict[str, Any]]:
        """Return all events that are not counted as JSON, in the order of their acceptance."""
        return [each.view() for each in self._uncounted]


def _rejection(
    event: MeterEvent, fault: EventFault, idempotency_key: str | None, *, sampled: bool
) -> Rejection:
    message = MESSAGES[fault.code].format(event_name=event.event_name, customer=event.customer)
    return Rejection(
        at=event.received + fault.seconds,
        meter=None if fault.code == NO_METER else event.meter,
        code=fault.code,
        message=message,
        # What a report names where a request had no key is not documented.
        request=idempotency_key or event.identifier,
        sampled=sampled,
    )
