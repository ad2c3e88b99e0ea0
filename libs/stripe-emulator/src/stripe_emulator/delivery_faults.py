"""Faults of webhooks on demand: which events come late, twice, out of order, or never."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from stripe_emulator.faults import ActiveFaults, InvalidFaultError, require_conditions


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
        require_conditions(cls, described)
        try:
            kind = DeliveryFaultKind(described.get("kind", ""))
        except ValueError as error:
            raise InvalidFaultError(str(error)) from error
        return cls(**{**described, "kind": kind})


class DeliveryFaults(ActiveFaults[DeliveryFault]):
    """The active faults of webhooks."""

    def delays(self, event_type: str) -> list[float | None]:
        """Return the delay of each delivery of an event, in seconds; None where it is held."""
        active = self.fire(lambda fault: event_type.startswith(fault.type_prefix))
        if active is None:
            return [0.0]
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
