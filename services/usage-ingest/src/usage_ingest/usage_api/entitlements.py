"""What an account may do: its plan, its limits, and how much of them is left. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from nexus_contracts.subscription_changed import RUNNING
from nexus_plans import Plan, Plans


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscription of the account, as Stripe last said."""

    plan_type: str | None
    status: str
    seats: int | None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """Return the subscription of a row."""
        return cls(row["plan_type"], row["status"], row["seats"])


@dataclass(frozen=True, slots=True)
class Period:
    """A billing period, by ``account_period`` of the database. ``basis``: `stripe`, `utc_month`."""

    start: datetime
    end: datetime
    basis: str


@dataclass(frozen=True, slots=True)
class KnownAccount:
    """What the ledger knows of a user and of an account, at a ``moment``.

    ``subscriptions`` have not ended; those whose period began last come first. ``readable`` says
    whether whoever asks may see the totals of this account.
    """

    user_id: UUID
    account_id: UUID
    known: bool
    plan_type: str | None
    subscriptions: Sequence[Subscription]
    readable: bool
    period: Period
    moment: datetime

    def subscription(self) -> Subscription | None:
        """Return the running subscription that gives the plan, else any that runs, else none."""
        return next(iter(self._running()), None)

    def _running(self) -> list[Subscription]:
        """Return the running subscriptions, those that give the plan first."""
        running = [each for each in self.subscriptions if each.status in RUNNING]
        return sorted(running, key=lambda each: each.plan_type != self.plan_type)


@dataclass(frozen=True, slots=True)
class Used:
    """What an account has used in the period, by meter; zero where a meter is missing.

    Not ``complete``: it has used at least that much.
    """

    amounts: Mapping[str, int]
    complete: bool


def entitlements(plans: Plans, account: KnownAccount, used: Used) -> dict[str, Any]:
    """Return the answer, without ``as_of``.

    Args:
        plans: The file of plans.
        account: The user's account.
        used: What the account has used in the period.
    """
    plan = plans.plan(account.plan_type, known=account.known)
    subscription, period = account.subscription(), account.period
    return {
        "user_id": account.user_id,
        "account_id": account.account_id,
        "plan": plan and plan.plan_type,
        "plan_name": plan and plan.display_name,
        "status": subscription and subscription.status,
        "features": list(plan.features) if plan else [],
        "denied": [pattern._asdict() for pattern in plans.denied(plan)],
        "limits": list(_limits(plans, plan, account, used)) if plan else [],
        "rate_limits": [
            {"server_id": server, "per_minute": each.per_minute}
            for each in (plan.rate_limits if plan else ())
            for server in each.servers
        ],
        "period": {"start": period.start, "end": period.end, "basis": period.basis},
        "seats": subscription and subscription.seats,
    }


def limited_meters(plans: Plans, account: KnownAccount) -> list[str]:
    """Return the meters whose amounts the answer needs."""
    plan = plans.plan(account.plan_type, known=account.known)
    if plan is None or not account.readable:
        return []
    return sorted({each.meter for each in plan.limits})


def _limits(
    plans: Plans, plan: Plan, account: KnownAccount, used: Used
) -> Iterable[dict[str, Any]]:
    period = account.period
    for limit in plan.limits:
        amount = used.amounts.get(limit.meter, 0)
        remaining = max(0, limit.limit - amount) if used.complete or not limit.hard else 0
        for pattern in plans.refused_by(plan, limit):
            yield {
                "name": limit.name,
                "meter": limit.meter,
                **pattern._asdict(),
                "limit": limit.limit,
                "used": amount if account.readable else None,
                "remaining": remaining if account.readable else None,
                "hard": limit.hard,
                "period_start": period.start,
                "period_end": period.end,
            }
