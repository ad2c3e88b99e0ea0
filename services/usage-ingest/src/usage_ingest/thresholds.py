"""Which shares of a plan's limits an account has newly reached, and SQL to look again. Pure."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NamedTuple
from uuid import UUID, uuid5

from nexus_contracts import UsageThresholdReached
from nexus_contracts.fields import MAX_VALUE
from nexus_plans import Plans

NAMESPACE: Final = UUID("6f2d1c52-5a0e-5d7b-9f57-0c8f3f0b7a11")
"""Of the ids. A threshold has the same id for ever, in whichever process and after any restore."""


def touched(amounts: str) -> str:
    """Return the statement that has limits looked at again; ``amounts`` selects what was touched.

    That is ``account_id``, ``meter`` and ``hour``: the earliest stays until it was looked at, since
    a period may have ended after it.
    """
    return f"""
INSERT INTO touched_amounts (account_id, meter, hour, touched_at)
SELECT account_id, meter, min(hour), now() FROM ({amounts}) a GROUP BY 1, 2
ON CONFLICT (account_id, meter) DO UPDATE
   SET touched_at = excluded.touched_at, hour = least(touched_amounts.hour, excluded.hour)"""  # noqa: S608 - no input


class Share(NamedTuple):
    """A share of a limit. If the limit's value changes, it is another one."""

    limit_name: str
    limit: int
    share_percent: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What an account has used of a meter in its billing period, and what was announced of it."""

    account_id: UUID
    meter: str
    plan_type: str | None
    period_start: datetime
    period_end: datetime
    used: int
    sent: Collection[Share]
    as_of: datetime


def newly_reached(usage: Usage, plans: Plans) -> Iterator[UsageThresholdReached]:
    """Yield what must be announced: every share that is reached and was not sent yet.

    A share of nothing is reached by the first use.
    """
    plan = plans.plan(usage.plan_type, known=True)
    for limit in plan.limits if plan else ():
        if limit.meter != usage.meter or usage.used <= 0:
            continue
        for share in limit.tell_at:
            reached = usage.used * 100 >= limit.limit * share
            if reached and Share(limit.name, limit.limit, share) not in usage.sent:
                yield UsageThresholdReached(
                    account_id=usage.account_id,
                    meter=usage.meter,
                    period_start=usage.period_start,
                    period_end=usage.period_end,
                    limit_name=limit.name,
                    limit=limit.limit,
                    share_percent=share,
                    used=min(usage.used, MAX_VALUE),
                    as_of=usage.as_of,
                )


def announced_meters(plans: Plans) -> frozenset[str]:
    """Return the meters of limits of which any share is announced."""
    limits = (limit for plan in plans.plans.values() for limit in plan.limits)
    return frozenset(limit.meter for limit in limits if limit.tell_at)


def event_id(reached: UsageThresholdReached) -> UUID:
    """Return the id of the event that announces it: the same however often it is announced."""
    parts = (
        reached.account_id,
        reached.meter,
        reached.period_start.astimezone(UTC).isoformat(),
        reached.limit_name,
        reached.limit,
        reached.share_percent,
    )
    return uuid5(NAMESPACE, "\n".join(map(str, parts)))
