"""A Stripe of subscriptions that a test changes between any two steps, and what follows them."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from typing_extensions import override

from customer_provisioner.storage.subscriptions import SubscriptionStore
from customer_provisioner.stripe.subscriptions import SubscriptionApi
from customer_provisioner.subscriptions import Fetched, FetchedItem, Subscription
from nexus_messaging.errors import PermanentError
from nexus_messaging.reasons import Reason
from nexus_plans.reading import read

BEGAN = datetime(2026, 3, 1, tzinfo=UTC)

PLANS = read(
    b"""
version: 1
unknown_users: free
without_subscription: free
plans:
  free: {display_name: Free}
  team: {display_name: Team, lookup_keys: [team_seat]}
""",
    "plans.yaml",
)

Pause = Callable[[], Awaitable[None]]


async def no_pause() -> None:
    """Do nothing."""


def subscription(
    subscription_id: str, customer_id: str, seats: int = 1, *, started_at: datetime = BEGAN
) -> Fetched:
    """Return a running subscription of some seats."""
    item = FetchedItem(
        price_id="price_seat",
        product_id="prod_1",
        lookup_key="team_seat",
        quantity=seats,
        meter=None,
        period_start=BEGAN,
        period_end=BEGAN + timedelta(days=31),
        price_metadata={"seats": "true"},
    )
    return Fetched(subscription_id, customer_id, "active", (item,), started_at)


def with_seats(fetched: Fetched, seats: int) -> Fetched:
    """Return a subscription after its quantity was changed."""
    (item,) = fetched.items
    return replace(fetched, items=(replace(item, quantity=seats),))


@dataclass
class StripeSide:
    """What Stripe has; ``refused`` are listed only, and ``calls`` counts the fetches."""

    subscriptions: dict[str, Fetched] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    calls: int = 0

    def put(self, *fetched: Fetched) -> None:
        """Create or change subscriptions."""
        self.subscriptions |= {each.subscription_id: each for each in fetched}


class ScriptedApi(SubscriptionApi):
    """Answers with what Stripe had when a call reached it, however long the answer takes."""

    def __init__(self, side: StripeSide, pause: Pause = no_pause, *, per_page: int = 2) -> None:
        self._side = side
        self._pause = pause
        self._per_page = per_page

    @override
    async def fetch(self, subscription_id: str) -> Fetched:
        await self._pause()
        self._side.calls += 1
        found = self._side.subscriptions.get(subscription_id)
        await self._pause()
        if found is None or subscription_id in self._side.refused:
            raise PermanentError(Reason.REFUSED_BY_STRIPE, "status 404")
        return found

    @override
    async def page(self, after: str | None) -> tuple[list[Fetched], str | None]:
        ids = sorted(self._side.subscriptions)
        start = 0 if after is None else ids.index(after) + 1
        page = ids[start : start + self._per_page]
        more = start + self._per_page < len(ids)
        return [self._side.subscriptions[each] for each in page], page[-1] if more else None

    @override
    async def of_customer(self, customer_id: str) -> list[str]:
        found = self._side.subscriptions.values()
        return [each.subscription_id for each in found if each.stripe_customer_id == customer_id]


class PausingStore(SubscriptionStore):
    """A store that pauses before and after each of the steps of a refresh."""

    pause: Pause = staticmethod(no_pause)

    @override
    async def find(self, subscription_ids: Sequence[str]) -> dict[str, Subscription]:
        await self.pause()
        found = await super().find(subscription_ids)
        await self.pause()
        return found

    @override
    async def store(self, subscription: Subscription, *, expected: int) -> bool:
        await self.pause()
        stored = await super().store(subscription, expected=expected)
        await self.pause()
        return stored
