"""The circuit breaker in front of Stripe: whether any call may be made now.

It opens on signs that no report would get through. That costs only time: reports wait in their
queue and spend no retry, until a probe finds that the cause is gone. Then it is half-open: one more
report without an answer opens it again. Consumption resumes with a single report, so that no more
than that one is risked.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import structlog

from nexus_messaging.backoff import pause_after
from nexus_stripe.answers import Receipt, StripeAnswer

FAILURE_THRESHOLD: Final = 5
"""Different reports in a row without an answer of Stripe's that mean an outage. One report alone
never does: the cause may be that report."""

FIRST_OPEN_SECONDS: Final = 2.0
MAX_OPEN_SECONDS: Final = 300.0
"""Seconds before a probe. They double while trials fail, up to the maximum: the probe reads, and
reads may succeed while writes do not."""

log = structlog.get_logger()


class Cause(StrEnum):
    """What opens the circuit: no report can be sent while it lasts."""

    KEY = "key"
    """Stripe refuses the key."""
    OUTAGE = "outage"
    """No report gets an answer of Stripe's."""
    METER = "meter"
    """Stripe has none of the meters."""


class CircuitOpenError(Exception):
    """No report can be sent now, whichever it is."""


@dataclass(frozen=True, slots=True)
class Circuit:
    """Closed, open while there is a ``cause``, or half-open (``trial``); times are in seconds.

    ``failed_reports`` are those whose calls since Stripe's last answer got none. ``missing`` are
    the meters that Stripe said it lacks. ``openings`` counts since a call last succeeded.
    """

    meters: frozenset[str]
    cause: Cause | None = None
    trial: bool = False
    failed_reports: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()
    openings: int = 0
    probe_from: float = 0.0

    def after(self, sign: Cause | None, identifier: str, meter: str, now: float) -> "Circuit":
        """Return the circuit after a call for the report ``identifier`` of ``meter``.

        ``sign`` is the cause that its answer is a sign of, if it is one.
        """
        if sign is Cause.OUTAGE:
            noted = replace(self, failed_reports=self.failed_reports | {identifier})
            enough = self.trial or len(noted.failed_reports) >= FAILURE_THRESHOLD
            return noted.opened(Cause.OUTAGE, now) if enough else noted
        answered = replace(self, failed_reports=frozenset())
        if sign is Cause.KEY:
            return answered.opened(Cause.KEY, now)
        if sign is Cause.METER:
            noted = replace(answered, missing=self.missing | {meter})
            return noted.opened(Cause.METER, now) if noted.missing >= self.meters else noted
        found = replace(answered, missing=self.missing - {meter})
        return found if found.cause else replace(found, trial=False, openings=0)

    def opened(self, cause: Cause, now: float) -> "Circuit":
        """Return the circuit opened; if it was open, the first cause stays."""
        if self.cause is not None:
            return self
        seconds = pause_after(self.openings, FIRST_OPEN_SECONDS, MAX_OPEN_SECONDS)
        return replace(
            self, cause=cause, trial=False, openings=self.openings + 1, probe_from=now + seconds
        )

    def probed(self, answer: StripeAnswer, active: frozenset[str]) -> "Circuit":
        """Return the circuit after a probe got ``answer``, a list of the ``active`` meters."""
        if self.cause is None or not _is_over(self.cause, answer, active & self.meters):
            return self
        return replace(
            self, cause=None, trial=True, failed_reports=frozenset(), missing=frozenset()
        )


def _is_over(cause: Cause, answer: StripeAnswer, found: frozenset[str]) -> bool:
    if answer.receipt is not Receipt.ANSWERED or answer.status is None:
        return False
    if answer.status == 403:  # noqa: PLR2004 - forbidden: a key that can't list meters may create events
        return True
    if answer.status >= 300:  # noqa: PLR2004 - not a success
        return False
    return cause is not Cause.METER or bool(found)


class CircuitBreaker:
    """Holds the circuit, and logs and shows when it opens or closes.

    ``probe`` lists the active meters. ``changed`` is called with the cause, or None once closed.
    """

    def __init__(
        self,
        meters: frozenset[str],
        probe: Callable[[], Awaitable[tuple[StripeAnswer, frozenset[str]]]],
        *,
        clock: Callable[[], float],
        changed: Callable[[Cause | None], None],
    ) -> None:
        self._circuit = Circuit(meters)
        self._probe = probe
        self._clock = clock
        self._changed = changed

    @property
    def cause(self) -> Cause | None:
        """Return why the circuit is open, or None if calls may be made."""
        return self._circuit.cause

    async def remark(self) -> str | None:
        """Return for `/readyz` that no report is sent, and why, or None."""
        return None if self.cause is None else f"circuit breaker open ({self.cause}): reports wait"

    def require_closed(self) -> None:
        """Return if calls may be made.

        Raises:
            CircuitOpenError: they may not.
        """
        if self.cause is not None:
            raise CircuitOpenError(self.cause.value)

    def note(self, sign: Cause | None, identifier: str, meter: str) -> None:
        """Take the answer to a call into account; see ``Circuit.after``."""
        self._set(self._circuit.after(sign, identifier, meter, self._clock()))

    async def probe(self) -> None:
        """Return once calls may be made again.

        Raises:
            CircuitOpenError: not yet.
        """
        if self.cause is not None and self._clock() >= self._circuit.probe_from:
            answer, active = await self._probe()
            self._set(self._circuit.probed(answer, active))
        self.require_closed()

    def _set(self, circuit: Circuit) -> None:
        before, self._circuit = self._circuit, circuit
        for meter in (circuit.missing - before.missing) & circuit.meters:
            log.error("meter_missing", meter=meter)
        if circuit.cause is before.cause:
            return
        if circuit.cause is not None:
            log.error("circuit_opened", cause=circuit.cause.value)
        else:
            log.info("circuit_closed", cause=before.cause.value if before.cause else None)
        self._changed(circuit.cause)
