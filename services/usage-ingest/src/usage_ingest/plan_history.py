"""Which plan an account had from when on, by its subscriptions. Pure."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from nexus_contracts import SubscriptionChanged
from nexus_contracts.subscription_changed import RUNNING

Best = Callable[[Collection[str]], str]
"""Chooses the plan that counts of several that run at once."""


@dataclass(frozen=True, slots=True)
class PlanSince:
    """From ``since`` on the plan is ``plan_type``; ``None``: no plan runs."""

    since: datetime
    plan_type: str | None


def runs(change: SubscriptionChanged) -> bool:
    """Whether the subscription gives its plan since ``change``."""
    return change.ended_at is None and change.status in RUNNING


def after_change(
    history: Sequence[PlanSince], known: str | None, change: SubscriptionChanged
) -> list[PlanSince]:
    """Return a subscription's history after ``change``.

    Args:
        history: The history before, ascending; empty for a new subscription.
        known: The plan that the subscription was known to be for, whether or not it ran.
        change: The change. While the plan is the same, it is about something else, and a status
            that begins or stops to count does so when that was seen. So does a plan whose time is
            not after what is known: it was found anew after a restore, and its time is the
            subscription's start.
    """
    plan = change.plan_type if runs(change) else None
    if history and history[-1].plan_type == plan:
        return list(history)
    if change.ended_at is not None:
        since = change.ended_at
    elif not history or (change.plan_type != known and change.plan_since > history[-1].since):
        since = change.plan_since
    else:
        since = change.as_of
    return [*(each for each in history if each.since < since), PlanSince(since, plan)]


def account_history(histories: Iterable[Sequence[PlanSince]], best: Best) -> list[PlanSince]:
    """Return an account's history, by those of its subscriptions, each ascending."""
    changes = sorted(
        (
            (each.since, number, each.plan_type)
            for number, history in enumerate(histories)
            for each in history
        ),
        key=lambda change: change[:2],
    )
    running: dict[int, str | None] = {}
    by_time: dict[datetime, str | None] = {}
    for since, number, plan in changes:
        running[number] = plan
        by_time[since] = _best(running, best)
    spans: list[PlanSince] = []
    for since, plan in by_time.items():
        if (spans[-1].plan_type if spans else None) != plan:
            spans.append(PlanSince(since, plan))
    return spans


def _best(running: Mapping[int, str | None], best: Best) -> str | None:
    plans = {plan for plan in running.values() if plan is not None}
    return best(plans) if plans else None
