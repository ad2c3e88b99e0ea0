"""What an account has subscribed to at Stripe: values and decisions only."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from dataclasses import fields as dataclass_fields
from datetime import datetime
from enum import Enum, auto
from uuid import UUID, uuid5

from customer_provisioner.profile import SOURCE
from customer_provisioner.revisions import next_revision
from nexus_contracts import Event, SubscriptionChanged
from nexus_contracts.subscription_changed import RUNNING, SubscriptionItem
from nexus_plans import Plans


@dataclass(frozen=True, slots=True)
class FetchedItem:
    """An item of a subscription, with what Stripe says of its price, product and meter."""

    price_id: str
    product_id: str
    lookup_key: str | None
    quantity: int | None
    meter: str | None
    period_start: datetime | None
    period_end: datetime | None
    price_metadata: Mapping[str, str] = field(default_factory=dict)
    product_metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fetched:
    """A subscription as Stripe has it."""

    subscription_id: str
    stripe_customer_id: str
    status: str
    items: tuple[FetchedItem, ...]
    started_at: datetime
    trial_end: datetime | None = None
    cancel_at: datetime | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """An item of a stored subscription; ``meter`` is the event name of its meter, if it has one."""

    price_id: str
    product_id: str
    lookup_key: str | None
    quantity: int | None
    meter: str | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a subscription says, whenever and however often it was fetched."""

    stripe_customer_id: str
    plan_type: str | None
    status: str
    seats: int | None
    items: tuple[Item, ...]
    period_start: datetime | None
    period_end: datetime | None
    trial_end: datetime | None
    cancel_at: datetime | None
    ended_at: datetime | None

    @property
    def running_plan(self) -> str | None:
        """The plan that the subscription gives now."""
        return self.plan_type if self.status in RUNNING else None


@dataclass(frozen=True, slots=True)
class Subscription:
    """One row of ``subscriptions``.

    Attributes:
        subscription_id: The subscription at Stripe.
        account_id: The account whose customer has it; None while no account of ours has.
        revision: Rises with each fetch that is stored.
        snapshot: What was fetched.
        plan_since: From when on the account has the plan by this subscription, or has it no more.
        as_of: When it was fetched.
    """

    subscription_id: str
    account_id: UUID | None
    revision: int
    snapshot: Snapshot
    plan_since: datetime
    as_of: datetime


@dataclass(frozen=True, slots=True)
class SubscriptionCounts:
    """Numbers of running subscriptions: for a plan, of no account; of an account, for no plan."""

    without_account: int
    without_plan: int


@dataclass(frozen=True, slots=True)
class PlanInUse:
    """A stored plan of subscriptions that have not ended, and lookup keys of their prices."""

    plan_type: str
    subscriptions: int
    lookup_keys: Sequence[str]


def plans_fault(in_use: Sequence[PlanInUse], plans: Plans | None) -> str | None:
    """Return what is wrong with a plan file that lacks a plan which subscriptions have, if any.

    The nightly sweep would put their accounts on no plan. A plan may have another name: then the
    file has one of the lookup keys.
    """
    lost = [
        f"{each.plan_type} ({each.subscriptions})"
        for each in in_use
        if plans is None
        or (
            each.plan_type not in plans.plans
            and not any(plans.plan_of_item(key, {}, {}) for key in each.lookup_keys)
        )
    ]
    if not lost:
        return None
    lacks = "not set" if plans is None else "lacks plans"
    return f"PLANS_FILE: {lacks}, and subscriptions that have not ended are for {', '.join(lost)}"


def after_fetch(
    stored: Subscription | None, fetched: Fetched, plans: Plans | None, as_of: datetime
) -> Subscription:
    """Return the subscription as it is stored after a fetch that began at ``as_of``.

    Its account is found where it is stored.
    """
    snapshot = snapshot_of(fetched, plans)
    return Subscription(
        subscription_id=fetched.subscription_id,
        account_id=None,
        revision=next_revision(0 if stored is None else stored.revision, as_of),
        snapshot=snapshot,
        plan_since=_plan_since(stored, fetched, snapshot, as_of),
        as_of=as_of,
    )


def after_sweep(stored: Subscription, as_of: datetime) -> Subscription:
    """Return a stored subscription that was still so at Stripe when a page was read at ``as_of``.

    It is announced under a new revision: a consumer may have a later one that a lost database had
    made, and would ignore the stored one.
    """
    as_of = max(as_of, stored.as_of)
    return replace(stored, revision=next_revision(stored.revision, as_of), as_of=as_of)


def snapshot_of(fetched: Fetched, plans: Plans | None) -> Snapshot:
    """Return what a fetched subscription says. Without ``plans`` it is for no plan."""
    found = [None if plans is None else _plan_of(each, plans) for each in fetched.items]
    named = [plan for plan in found if plan is not None]
    plan_type = plans.best(named) if plans is not None and named else None
    start, end = _period(fetched.items)
    return Snapshot(
        stripe_customer_id=fetched.stripe_customer_id,
        plan_type=plan_type,
        status=fetched.status,
        seats=None if plans is None else _seats(fetched.items, plans),
        items=tuple(
            Item(each.price_id, each.product_id, each.lookup_key, each.quantity, each.meter)
            for each in fetched.items
        ),
        period_start=start,
        period_end=end,
        trial_end=fetched.trial_end,
        cancel_at=fetched.cancel_at,
        ended_at=fetched.ended_at,
    )


class Difference(Enum):
    """How a subscription that the sweep saw at Stripe differs from the stored one."""

    NONE = auto()
    OURS = auto()
    """The subscription has not changed at Stripe: the plan file has, or its price's lookup key, or
    it is older than we are."""
    WEBHOOK = auto()
    """No webhook has said what Stripe has changed, or it is still on the way."""


def difference(
    stored: Subscription | None, fetched: Fetched, seen: Snapshot, previous: datetime | None
) -> Difference:
    """Compare a subscription that was fetched, and what it says, with the stored one.

    Args:
        stored: The stored one, if there is one.
        fetched: The one at Stripe.
        seen: What it says by the present plan file.
        previous: When the last complete sweep began, which had stored all that there was.
    """
    if stored is None:
        began_since = previous is not None and fetched.started_at >= previous
        return Difference.WEBHOOK if began_since else Difference.OURS
    if stored.snapshot == seen:
        return Difference.NONE
    same = _without_what_no_webhook_says(stored.snapshot) == _without_what_no_webhook_says(seen)
    return Difference.OURS if same else Difference.WEBHOOK


def announcement(subscription: Subscription) -> Event[SubscriptionChanged]:
    """Return the event that announces a subscription; made again, it is the same event.

    Raises:
        ValueError: no account has it.
    """
    if subscription.account_id is None:
        raise ValueError("a subscription without an account can't be announced")
    snapshot, subscription_id = subscription.snapshot, subscription.subscription_id
    fields = {field.name: getattr(snapshot, field.name) for field in dataclass_fields(snapshot)}
    items = [SubscriptionItem(**asdict(item)) for item in snapshot.items]
    return Event.of(
        SubscriptionChanged(
            **{**fields, "items": items},
            subscription_id=subscription_id,
            account_id=subscription.account_id,
            revision=subscription.revision,
            plan_since=subscription.plan_since,
            as_of=subscription.as_of,
        ),
        source=SOURCE,
        id=uuid5(
            subscription.account_id,
            f"{SubscriptionChanged.TYPE}:{subscription_id}:{subscription.revision}",
        ),
        time=subscription.as_of,
    )


def _without_what_no_webhook_says(snapshot: Snapshot) -> Snapshot:
    # A subscription has no event of its own when another price takes over the lookup key of its.
    items = tuple(replace(item, lookup_key=None) for item in snapshot.items)
    return replace(snapshot, plan_type=None, seats=None, items=items)


def _plan_of(item: FetchedItem, plans: Plans) -> str | None:
    return plans.plan_of_item(item.lookup_key, item.product_metadata, item.price_metadata)


def _plan_since(
    stored: Subscription | None, fetched: Fetched, snapshot: Snapshot, as_of: datetime
) -> datetime:
    if fetched.ended_at is not None:
        return fetched.ended_at
    if stored is None:
        return fetched.started_at
    before = (stored.snapshot.plan_type, stored.snapshot.running_plan)
    return stored.plan_since if before == (snapshot.plan_type, snapshot.running_plan) else as_of


def _seats(items: Sequence[FetchedItem], plans: Plans) -> int | None:
    """Return the quantity of what is paid by seat; None if nothing is."""
    seats = [
        item.quantity
        for item in items
        if item.quantity is not None and plans.seats_price(item.lookup_key, item.price_metadata)
    ]
    return sum(seats) if seats else None


def _period(items: Sequence[FetchedItem]) -> tuple[datetime | None, datetime | None]:
    """Return the period of what is metered, else of any item; of several, the first to end."""
    metered = [item for item in items if item.meter is not None]
    periods = [
        (item.period_end, item.period_start)
        for item in metered or items
        if item.period_start is not None and item.period_end is not None
    ]
    end, start = min(periods, default=(None, None))
    return start, end
