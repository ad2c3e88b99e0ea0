"""Faults of accepted meter events: which are never counted, and which of these are reported."""

import random
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

from stripe_emulator.error_reports import MESSAGES
from stripe_emulator.events import MeterEvent
from stripe_emulator.faults import InvalidFaultError
from stripe_emulator.ids import new_id


class EventFaultKind(StrEnum):
    """What becomes of an event that was answered with 200."""

    DROPPED = "dropped"
    """It is not counted, and nothing says so."""
    REJECTED = "rejected"
    """It is not counted, and an error report counts it."""


@dataclass(frozen=True, slots=True)
class EventFault:
    """A fault and the accepted events it applies to; every given condition has to hold.

    Attributes:
        kind: What becomes of them.
        code: Why an event is rejected: one of ``error_reports.MESSAGES``.
        seconds: How long after its acceptance an event is rejected, on the account's clock.
        sampled: The probability that a report names a rejected event.
        times: How many events it applies to; None for all until it is removed.
        probability: The probability of its applying to such an event.
        seed: Makes both probabilities repeatable: what happens to an event then depends on its
            identifier alone, in whatever order events come.
        identifier: An event's identifier.
        customer: The customer it is for.
        event_name: The name of its meter.
    """

    kind: EventFaultKind
    code: str = "meter_event_customer_not_found"
    seconds: float = 0.0
    sampled: float = 1.0
    times: int | None = 1
    probability: float = 1.0
    seed: int | None = None
    identifier: str | None = None
    customer: str | None = None
    event_name: str | None = None

    @classmethod
    def read(cls, described: dict[str, Any]) -> "EventFault":
        """Read a fault from JSON.

        Raises:
            InvalidFaultError: Naming what is unknown or out of range.
        """
        unknown = described.keys() - {field.name for field in fields(cls)}
        if unknown:
            raise InvalidFaultError(f"unknown field: {min(unknown)}")
        try:
            fault = cls(**{**described, "kind": EventFaultKind(described.get("kind", ""))})
        except ValueError as error:
            raise InvalidFaultError(str(error)) from error
        if fault.code not in MESSAGES:
            raise InvalidFaultError(f"code must be one of {', '.join(MESSAGES)}")
        if not _is_number(fault.seconds) or fault.seconds < 0:
            raise InvalidFaultError("seconds must be a number and not negative")
        times = described.get("times", 1)
        if times is not None and (not isinstance(times, int) or times < 1):
            raise InvalidFaultError("times must be a positive whole number or null")
        if not _is_number(fault.probability) or not 0 < fault.probability <= 1:
            raise InvalidFaultError("probability must be above 0 and at most 1")
        if not _is_number(fault.sampled) or not 0 <= fault.sampled <= 1:
            raise InvalidFaultError("sampled must be from 0 to 1")
        return fault

    def matches(self, event: MeterEvent) -> bool:
        """Return whether an event meets all conditions of this fault."""
        return (
            self.identifier in (None, event.identifier)
            and self.customer in (None, event.customer)
            and self.event_name in (None, event.event_name)
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class _Active:
    def __init__(self, fault: EventFault) -> None:
        self.id = new_id("fault")
        self.fault = fault
        self.fired = 0
        seed = self.id if fault.seed is None else fault.seed
        self._seed = f"{seed}:{fault.kind}:{fault.code}"

    def fires(self, event: MeterEvent) -> bool:
        spent = self.fault.times is not None and self.fired >= self.fault.times
        matches = not spent and self.fault.matches(event)
        return matches and self._draw("fires", event) < self.fault.probability

    def samples(self, event: MeterEvent) -> bool:
        return self._draw("samples", event) < self.fault.sampled

    def _draw(self, what: str, event: MeterEvent) -> float:
        # A text seeds by its hash, which no process salts.
        return random.Random(f"{self._seed}:{what}:{event.identifier}").random()  # noqa: S311


class EventFaults:
    """The active faults of accepted events; only the first that fires applies to an event."""

    def __init__(self) -> None:
        self._active: list[_Active] = []

    def add(self, fault: EventFault) -> str:
        """Add a fault and return its id."""
        active = _Active(fault)
        self._active.append(active)
        return active.id

    def remove(self, id_: str | None = None) -> int:
        """Remove one fault, or all, and return how many that were."""
        kept = [] if id_ is None else [active for active in self._active if active.id != id_]
        removed = len(self._active) - len(kept)
        self._active = kept
        return removed

    def choose(self, event: MeterEvent) -> tuple[EventFault, bool] | None:
        """Return the fault that applies to an event and whether a report may name the event."""
        for active in self._active:
            if active.fires(event):
                active.fired += 1
                return active.fault, active.samples(event)
        return None

    def listed(self) -> list[dict[str, Any]]:
        """Return all faults as JSON, with how often each fired."""
        return [{"id": each.id, "fired": each.fired, **asdict(each.fault)} for each in self._active]
