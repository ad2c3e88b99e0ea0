"""What Stripe's sum of an hour says of the reports in it. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from usage_ingest.reconciliation import MAX_LAG, Difference, HourReport, Standing

MAX_SUMS: Final = 20_000
"""Different sums that the accepted reports of an hour may have, or those without an answer; beyond
that nothing is inferred."""

MAX_OPEN: Final = 20
"""Reports without an answer in one hour; beyond that nothing is inferred, likewise."""


def infer(reports: Sequence[HourReport], counted: float, as_of: datetime) -> dict[UUID, bool]:
    """Infer which reports without an answer Stripe has, from its sum of their hour at ``as_of``.

    Stripe may also lack what it had accepted: 5 that were lost and 5 of an unknown report make the
    sum that the 5 alone would make, and then nothing is said. It may have a report that it had
    refused, whose answer is on its way after an operator moved it, and one that it has rejected
    since. Nor is a report missing that Stripe may have accepted and not shown yet. Nor is anything
    said in an hour with shadow reports: of their usage Stripe may have any part.

    Returns:
        By report, whether Stripe has it: only of those for which every explanation of the sum says
        the same. It rests on nobody else sending usage for this customer and meter.
    """
    unanswered = [each for each in reports if each.standing is Standing.OPEN]
    accepted = _sums(each.value for each in reports if _may_be_shown(each, as_of))
    has_shadow = any(each.standing is Standing.SHADOW for each in reports)
    unclear = has_shadow or not counted.is_integer()
    if unclear or len(unanswered) > MAX_OPEN or accepted is None:
        return {}
    inferred = {}
    for report in unanswered:
        others = _sums(each.value for each in unanswered if each is not report)
        if others is None:
            return {}
        without = any(counted - each in accepted for each in others)
        with_it = any(counted - report.value - each in accepted for each in others)
        if without != with_it and (with_it or report.is_shown(as_of)):
            inferred[report.report_id] = with_it
    return inferred


def _may_be_shown(report: HourReport, as_of: datetime) -> bool:
    """Whether a sum may have an answered report, or may have had it when it was read."""
    if report.standing is Standing.REJECTED:
        return report.answered_at is None or report.answered_at > as_of - MAX_LAG
    is_refused = report.state == "rejected" and report.standing is Standing.NEVER
    return report.standing is Standing.COUNTED or is_refused


def suspects(reports: Sequence[HourReport], difference: Difference) -> list[UUID]:
    """Return the reports each of which could be the whole difference.

    Of too little, what Stripe had accepted and may have lost, or the way before this one has not
    reported; of too much, what it had refused, and may be there. They are guesses: others may
    explain it as well.
    """
    lacking, beyond = {Standing.COUNTED, Standing.SHADOW}, {Standing.REJECTED, Standing.NEVER}
    suspected = lacking if difference.by < 0 else beyond
    return [
        each.report_id
        for each in reports
        if each.value == abs(difference.by) and each.standing in suspected
    ]


def _sums(values: Iterable[int]) -> set[int] | None:
    """Return every sum of some of ``values``; None if there are too many."""
    sums = {0}
    for value, number in Counter(values).items():
        # As many as `number` are some of 1, 2, 4 and so on of them, and the rest.
        left, part = number, 1
        while left:
            part = min(part, left)
            sums |= {each + part * value for each in sums}
            if len(sums) > MAX_SUMS:
                return None
            left, part = left - part, 2 * part
    return sums
