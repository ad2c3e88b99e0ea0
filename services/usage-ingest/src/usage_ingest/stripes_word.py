"""What became of usage that Stripe has accepted, as `status` says it. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from nexus_service.console import Finding, Tone, format_age
from usage_ingest.periods import Placement

MAX_SHOWN: Final = 5_000
"""Open differences, and reports outside their period, of which the numbers are shown."""

ALERTED: Final = (Placement.NOT_SUBSCRIBED, Placement.AFTER_FINALISATION, Placement.ENDED_EARLY)
"""The placements of the alert UsageOnNoInvoice, the loudest first."""


@dataclass(frozen=True, slots=True)
class DifferenceCount:
    """How many hours differ at Stripe in one way, and when the first of them was seen."""

    kind: str
    number: int
    oldest: datetime


@dataclass(frozen=True, slots=True)
class PlacementCount:
    """How many accepted reports, of all meters, ended up in one place outside their period."""

    placement: Placement
    number: int


@dataclass(frozen=True, slots=True)
class StripesWord:
    """The differences that are open, where reports ended up, and when the sums were read last.

    Of many differences those are counted that are known for the longest, of reports the newest.
    """

    differences: tuple[DifferenceCount, ...] = ()
    placements: tuple[PlacementCount, ...] = ()
    sums_read_at: datetime | None = None


def word_findings(word: StripesWord, now: datetime) -> Iterator[Finding]:
    """Yield what Stripe's sums say, and what is on no invoice or in doubt.

    Nothing of it keeps usage from Stripe, so none is a fault; `reconcile` and alerts have a limit.
    """
    if word.sums_read_at is None:
        yield Finding("Stripe's sums", "never read", Tone.NOTE)
    else:
        yield _sums(word, f"read {format_age(now - word.sums_read_at)} ago", now)
    placed = {each.placement: each for each in word.placements}
    alerted = [placed[each] for each in ALERTED if each in placed]
    if alerted:
        text = ", ".join(f"{each.number} {each.placement}" for each in alerted)
        text = f"on none, or in doubt: reports {text}: docs/runbook.md#usageonnoinvoice"
        yield Finding("invoices", text, Tone.NOTE)
    if unknown := placed.get(Placement.UNKNOWN):
        text = f"not known of {unknown.number} reports: subscriptions were not read yet"
        yield Finding("subscriptions", text, Tone.NOTE)


def _sums(word: StripesWord, read: str, now: datetime) -> Finding:
    if not word.differences:
        return Finding("Stripe's sums", f"{read}, no difference")
    text = ", ".join(
        f"{each.number} {each.kind} (the oldest for {format_age(now - each.oldest)})"
        for each in word.differences
    )
    return Finding("Stripe's sums", f"{read}, differ in hours: {text}: see reconcile", Tone.NOTE)
