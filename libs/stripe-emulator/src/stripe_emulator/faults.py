"""Faults on demand: which requests fail, how, and before or after their effect."""

import random
from collections.abc import Callable
from dataclasses import Field, asdict, dataclass
from enum import StrEnum
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from stripe_emulator.ids import new_id


class FaultKind(StrEnum):
    """What goes wrong."""

    LATENCY = "latency"
    """The answer comes, ``seconds`` late."""
    RESET = "reset"
    """The connection is reset without an answer."""
    TRUNCATED = "truncated"
    """The answer's headers come, and half of its body."""
    SERVER_ERROR = "server_error"
    """500 from the API itself, kept under the idempotency key."""
    HTML_503 = "html_503"
    """503 with an HTML body, from something in front of the API."""
    FOREIGN = "foreign"
    """The ``status`` and ``body`` that are given, from something in front of the API."""
    RATE_LIMITED = "rate_limited"
    """429 with ``Stripe-Rate-Limited-Reason``."""
    LOCK_TIMEOUT = "lock_timeout"
    """429 with the code ``lock_timeout`` and no such header."""
    CONFLICT = "conflict"
    """409 as for overlapping calls."""
    STATUS = "status"
    """An error of the API's own with the HTTP ``status`` that is wanted."""


class When(StrEnum):
    """Whether a fault happens before or after the request's effect."""

    BEFORE = "before"
    AFTER = "after"


class InvalidFaultError(ValueError):
    """A fault description that can't be read."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault and the requests it applies to; every given condition has to hold.

    Attributes:
        kind: What goes wrong.
        when: ``before``: nothing took effect. ``after``: it did, and only the answer is lost.
        seconds: How long the request hangs on that side of the effect.
        times: How many requests it applies to; None for all until it is removed.
        probability: The probability of its applying to a request that meets its conditions.
        seed: Makes a probability repeatable.
        method: Such as ``POST``.
        path_prefix: Such as ``/v1/billing/meter_events``.
        identifier: A meter event's identifier.
        customer: The customer a request is about.
        reason: The rate-limit reason of ``rate_limited``.
        status: The HTTP status of ``status`` and ``foreign``, from 300 (``foreign``: 200) to 599.
        body: What ``foreign`` answers with.
        content_type: The media type of that.
        request_id: Whether ``foreign`` carries a ``Request-Id`` as the API's answers do.
    """

    kind: FaultKind
    when: When = When.BEFORE
    seconds: float = 0.0
    times: int | None = 1
    probability: float = 1.0
    seed: int | None = None
    method: str | None = None
    path_prefix: str = "/v1/"
    identifier: str | None = None
    customer: str | None = None
    reason: str = "global-rate"
    status: int = 502
    body: str = ""
    content_type: str = "application/json"
    request_id: bool = False

    @classmethod
    def read(cls, described: dict[str, Any]) -> "Fault":
        """Read a fault from JSON.

        Raises:
            InvalidFaultError: Naming what is unknown or out of range.
        """
        require_conditions(cls, described)
        try:
            kind, when = FaultKind(described.get("kind", "")), When(described.get("when", "before"))
        except ValueError as error:
            raise InvalidFaultError(str(error)) from error
        _require_status(described)
        return cls(**{**described, "kind": kind, "when": when})

    def matches(self, target: "Target") -> bool:
        """Return whether a request meets all conditions of this fault."""
        return (
            target.path.startswith(self.path_prefix)
            and self.method in (None, target.method)
            and self.identifier in (None, target.identifier)
            and self.customer in (None, target.customer)
        )


class Conditional(Protocol):
    """What every kind of fault has; see ``Fault``."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def times(self) -> int | None:
        """How often it applies."""

    @property
    def probability(self) -> float:
        """The probability of its applying."""

    @property
    def seed(self) -> int | None:
        """Makes the probability repeatable."""


def require_conditions(kind: type[Conditional], described: dict[str, Any]) -> None:
    """Check the names of a fault's fields, and what every kind of fault has.

    Raises:
        InvalidFaultError: Naming what is unknown or out of range.
    """
    if unknown := described.keys() - kind.__dataclass_fields__.keys():
        raise InvalidFaultError(f"unknown field: {min(unknown)}")
    seconds, times = described.get("seconds", 0), described.get("times", 1)
    probability = described.get("probability", 1)
    if not isinstance(seconds, int | float) or seconds < 0:
        raise InvalidFaultError("seconds must be a number and not negative")
    if times is not None and (not isinstance(times, int) or times < 1):
        raise InvalidFaultError("times must be a positive whole number or null")
    if not isinstance(probability, int | float) or not 0 < probability <= 1:
        raise InvalidFaultError("probability must be above 0 and at most 1")


def _require_status(described: dict[str, Any]) -> None:
    status = described.get("status", 502)
    least = 200 if described.get("kind") == FaultKind.FOREIGN else 300
    if not isinstance(status, int) or not least <= status < 600:  # noqa: PLR2004 - HTTP's statuses
        raise InvalidFaultError(f"status must be a whole number from {least} to 599")


@dataclass(frozen=True, slots=True)
class Target:
    """What the conditions of faults are compared with."""

    method: str
    path: str
    identifier: str | None = None
    customer: str | None = None


FaultT = TypeVar("FaultT", bound=Conditional)


class ActiveFault(Generic[FaultT]):
    """A fault, and how often it has fired."""

    def __init__(self, fault: FaultT) -> None:
        self.id = new_id("fault")
        self.fault = fault
        self.fired = 0
        self.random = random.Random(fault.seed)  # noqa: S311 - repeatable by seed, no secret

    @property
    def spent(self) -> bool:
        """Whether it never fires again."""
        return self.fault.times is not None and self.fired >= self.fault.times

    def view(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"id": self.id, "fired": self.fired, "spent": self.spent, **asdict(self.fault)}


class ActiveFaults(Generic[FaultT]):
    """The active faults of one kind; only the first that fires applies."""

    def __init__(self) -> None:
        self._active: list[ActiveFault[FaultT]] = []

    def add(self, fault: FaultT) -> str:
        """Add a fault and return its id."""
        active = ActiveFault(fault)
        self._active.append(active)
        return active.id

    def remove(self, id_: str | None = None) -> int:
        """Remove one fault, or all, and return how many that were."""
        kept = [] if id_ is None else [active for active in self._active if active.id != id_]
        removed = len(self._active) - len(kept)
        self._active = kept
        return removed

    def fire(self, matches: Callable[[FaultT], bool]) -> ActiveFault[FaultT] | None:
        """Return the first that fires of those that match, and count it as fired."""
        for active in self._active:
            if (
                not active.spent
                and matches(active.fault)
                and active.random.random() < active.fault.probability
            ):
                active.fired += 1
                return active
        return None

    def listed(self) -> list[dict[str, Any]]:
        """Return all faults as JSON, with how often each fired."""
        return [active.view() for active in self._active]


class Faults(ActiveFaults[Fault]):
    """The active faults of requests."""

    def choose(self, target: Target) -> Fault | None:
        """Return the fault that applies to this request."""
        active = self.fire(lambda fault: fault.matches(target))
        return None if active is None else active.fault
