"""Whether Stripe may be called at all: shut by signs that no report would get through now.

Shutting costs nothing but time: reports wait in their queue, unblamed, until a probe finds that
the cause is gone. After that comes a trial: one more report without an answer shuts it again. The
consumption then begins with a single report, so that no more than that is risked.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from nexus_stripe.answers import Answer, Receipt
from stripe_reporter.meanings import Cause, Meaning

UNKNOWN_RUNNING: Final = 5
"""Different reports in a row without an answer of Stripe's that mean an outage."""

FIRST_PAUSE: Final = 2.0
LONGEST_PAUSE: Final = 300.0
"""Seconds before a probe. The pause doubles while trials keep failing, up to this: a probe that
reads may well succeed while calls that write do not."""

log = structlog.get_logger()


class GateShutError(Exception):
    """No report can be sent now; none of them is to blame."""


@dataclass(frozen=True, slots=True)
class GateState:
    """The gate as a value; times are seconds of one clock.

    ``cause`` is why it is shut. ``silent`` are the reports whose last calls all brought no answer,
    ``missing`` the meters Stripe said it lacks. ``shuttings`` counts since Stripe last worked.
    """

    meters: frozenset[str]
    cause: Cause | None = None
    trial: bool = False
    silent: frozenset[str] = field(default=frozenset())
    missing: frozenset[str] = field(default=frozenset())
    shuttings: int = 0
    probe_from: float = 0.0

    def after(self, meaning: Meaning, identifier: str, meter: str, now: float) -> "GateState":
        """Return the gate after a call for ``identifier`` and ``meter`` was answered."""
        if meaning.closes is Cause.OUTAGE:
            silent = self.silent | {identifier}
            enough = self.trial or len(silent) >= UNKNOWN_RUNNING
            heard = replace(self, silent=silent)
            return heard.shut(Cause.OUTAGE, now) if enough else heard
        heard = replace(self, silent=frozenset())
        if meaning.closes is Cause.AUTH:
            return heard.shut(Cause.AUTH, now)
        if meaning.closes is Cause.METER:
            lacking = replace(heard, missing=self.missing | {meter})
            return lacking.shut(Cause.METER, now) if lacking.missing >= self.meters else lacking
        found = replace(heard, missing=self.missing - {meter})
        return found if found.cause else replace(found, trial=False, shuttings=0)

    def shut(self, cause: Cause, now: float) -> "GateState":
        """Return the gate shut; it stays shut for the first cause."""
        if self.cause is not None:
            return self
        pause = min(FIRST_PAUSE * 2**self.shuttings, LONGEST_PAUSE)
        return replace(
            self, cause=cause, trial=False, shuttings=self.shuttings + 1, probe_from=now + pause
        )

    def probed(self, answer: Answer, active: frozenset[str]) -> "GateState":
        """Return the gate after a probe listed the ``active`` meters and got ``answer``."""
        if self.cause is None or not _passes(self.cause, answer, active & self.meters):
            return self
        return replace(self, cause=None, trial=True, silent=frozenset(), missing=frozenset())


def _passes(cause: Cause, answer: Answer, found: frozenset[str]) -> bool:
    if answer.receipt is not Receipt.ANSWERED or answer.status is None:
        return False
    if answer.status == 403:  # noqa: PLR2004 - forbidden: the key may well write what it can't read
        return True
    if answer.status >= 300:  # noqa: PLR2004 - not a success
        return False
    return cause is not Cause.METER or bool(found)


class Gate:
    """Holds the state, tells of its changes, and lets calls through."""

    def __init__(
        self,
        meters: frozenset[str],
        probe: Callable[[], Awaitable[tuple[Answer, frozenset[str]]]],
        *,
        clock: Callable[[], float],
        changed: Callable[[Cause | None], None],
    ) -> None:
        self._state = GateState(meters)
        self._probe = probe
        self._clock = clock
        self._changed = changed

    @property
    def cause(self) -> Cause | None:
        """Return why the gate is shut, or nothing if it is open."""
        return self._state.cause

    async def remark(self) -> str | None:
        """Say why no report is sent, if it is Stripe's side that keeps us from it."""
        cause = self.cause
        return None if cause is None else f"shut for {cause.value}: nothing is sent until it ends"

    def require_open(self) -> None:
        """Return if calls may be made.

        Raises:
            GateShutError: they may not.
        """
        if self._state.cause is not None:
            raise GateShutError(self._state.cause.value)

    def note(self, meaning: Meaning, identifier: str, meter: str) -> None:
        """Take an answer into account."""
        self._become(self._state.after(meaning, identifier, meter, self._clock()))

    async def probe(self) -> None:
        """Return once calls may be made again.

        Raises:
            GateShutError: not yet.
        """
        if self._state.cause is not None and self._clock() >= self._state.probe_from:
            answer, active = await self._probe()
            self._become(self._state.probed(answer, active))
        self.require_open()

    def _become(self, state: GateState) -> None:
        before, self._state = self._state, state
        for meter in (state.missing - before.missing) & state.meters:
            log.error("meter_missing", meter=meter)
        if state.cause is before.cause:
            return
        if state.cause is not None:
            log.error("gate_shut", cause=state.cause.value)
        else:
            log.info("gate_opened", cause=before.cause.value if before.cause else None)
        self._changed(state.cause)
