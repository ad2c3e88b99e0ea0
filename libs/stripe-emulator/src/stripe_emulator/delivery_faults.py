"""Faults of webhooks on demand: which events come late, twice, out of order, or never."""

import random
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

from stripe_emulator.faults import InvalidFaultError
from stripe_emulator.ids import new_id


class DeliveryFaultKind(StrEnum):
    """What goes wrong."""

    LATE = "late"
    """The first attempt comes ``seconds`` late."""
    SHUFFLED = "shuffled"
    """The first attempt comes late by a random part of ``seconds``, so events change places."""
    TWICE = "twice"
    """It is delivered a second time, ``seconds`` later."""
    LOST = "lost"
    """It is never delivered."""
    HELD = "held"
    """It waits until it is released."""


@dataclass(frozen=True, slots=True)
class DeliveryFault:
    """A fault and the events it applies to; every given condition has to hold.

    Attributes:
        kind: What goes wrong.
        seconds: How late, on the account's clock.
        times: How many deliveries it applies to; None for all until it is removed.
        type_prefix: Such as ``customer.subscription.``.
        probability: The probability of its applying to such an event.
        seed: Makes probabilities and random delays repeatable.
    """

    kind: DeliveryFaultKind
    seconds: float = 0.0
    times: int | None = 1
    type_prefix: str = ""
    probability: float = 1.0
    seed: int | None = None

    @classmethod
    def read(cls, described: dict[str, Any]) -> "DeliveryFault":
        """Read a fault from JSON.

        Raises:
            InvalidFaultError: Naming what is unknown or out of range.
        """
        unknown = described.keys() - {field.name for field in fields(cls)}
        if unknown:
            raise InvalidFaultError(f"unknown field: {min(unknown)}")
        try:
            kind = DeliveryFaultKind(described.get("kind", ""))
        except ValueError as error:
            raise InvalidFaultError(str(error)) from error
        seconds, times = described.get("seconds", 0), described.get("times", 1)
        probability = described.get("probability", 1)
        if not isinstance(seconds, int | float) or seconds < 0:
            raise InvalidFaultError("seconds must be a number and not negative")
        if times is not None and (not isinstance(times, int) or times < 1):
            raise InvalidFaultError("times must be a positive whole number or null")
        if not isinstance(probability, int | float) or not 0 < probability <= 1:
            raise InvalidFaultError("probability must be above 0 and at most 1")
        return cls(**{**described, "kind": kind})


class _Active:
    def __init__(self, fault: DeliveryFault) -> None:
        self.id = new_id("fault")
        self.fault = fault
        self.fired = 0
        self.random = random.Random(fault.seed)  # noqa: S311 - repeatable by seed, no secret

    def fires(self, event_type: str) -> bool:
        spent = self.fault.times is not None and self.fired >= self.fault.times
        return (
            not spent
            and event_type.startswith(self.fault.type_prefix)
            and self.random.random() < self.fault.probability
        )


class DeliveryFaults:
    """The active faults of webhooks; only the first that fires applies to an event."""

    def __init__(self) -> None:
        self._active: list[_Active] = []

    def add(self, fault: DeliveryFault) -> str:
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

    def delays(self, event_type: str) -> list[float | None]:
        """Return the delay of each delivery of an event, in seconds; None where it is held."""
        active = next((each for each in self._active if each.fires(event_type)), None)
        if active is None:
            return [0.0]
        active.fired += 1
        match active.fault.kind:
            case DeliveryFaultKind.LATE:
                return [active.fault.seconds]
            case DeliveryFaultKind.SHUFFLED:
                return [active.random.uniform(0, active.fault.seconds)]
            case DeliveryFaultKind.TWICE:
                return [0.0, active.fault.seconds]
            case DeliveryFaultKind.LOST:
                return []
            case DeliveryFaultKind.HELD:
                return [None]

    def listed(self) -> list[dict[str, Any]]:
        """Return all faults as JSON, with how often each fired."""
        return [{"id": each.id, "fired": each.fired, **asdict(each.fault)} for each in self._active]
