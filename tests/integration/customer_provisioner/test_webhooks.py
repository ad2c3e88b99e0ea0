"""Webhooks at the running service, and what Stripe says of subscriptions."""

import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import stripe as sdk
from prometheus_client import CollectorRegistry

from customer_provisioner.metrics import Metrics
from customer_provisioner.storage.reader import ProfileReader
from customer_provisioner.storage.subscriptions import SubscriptionStore
from customer_provisioner.stripe.api import StripeApi
from customer_provisioner.stripe.calls import StripeCalls
from customer_provisioner.stripe.responses import RightMissingError
from customer_provisioner.stripe.subscriptions import SubscriptionApi
from local_stack.server_process import ServerProcess
from nexus_contracts import SubscriptionChanged, read_event
from nexus_database import Database
from nexus_messaging.topology import STRIPE_CHANGED_QUEUE, SUBSCRIPTION_CHANGED_QUEUE
from stripe_emulator.delivery_faults import DeliveryFault
from stripe_emulator.keys import KeyState
from stripe_emulator.running import DEFAULT_KEY
from support.vhost import Vhost
from support.waiting import eventually

from .conftest import Bench, Spawn, Stripe, start, user
from .test_commands import Command
from .test_service import settled

SECRET = "whsec_of_the_tests"

CUSTOMERS = frozenset({"rak_customer_read", "rak_customer_write"})
"""The rights of a key that no one has extended for subscriptions."""

PLANS = """
version: 1
unknown_users: free
without_subscription: free
meters: {compute: {display_name: Compute}}
plans:
  free: {display_name: Free}
  team: {display_name: Team, lookup_keys: [team_seat]}
"""


async def made(stripe: Stripe, path: str, **form: Any) -> dict[str, Any]:
    """Create or change an object at the local Stripe."""
    headers = {"Authorization": f"Bearer {DEFAULT_KEY}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{stripe.url}/v1/{path}", data=form) as answer,
    ):
        body: dict[str, Any] = await answer.json()
        assert answer.status == 200, body
        return body


@dataclass(frozen=True)
class Shop:
    """Two prices: a seat, and metered compute."""

    stripe: Stripe
    seat: str
    compute: str

    async def subscribe(self, customer_id: str, seats: int) -> dict[str, Any]:
        """Have a customer subscribe to both."""
        items = {
            "items[0][price]": self.seat,
            "items[0][quantity]": str(seats),
            "items[1][price]": self.compute,
        }
        return await made(
            self.stripe, "subscriptions", customer=customer_id, trial_period_days="7", **items
        )


@pytest.fixture
async def shop(stripe: Stripe) -> Shop:
    """Return what can be subscribed to."""
    meter = await made(
        stripe,
        "billing/meters",
        display_name="Compute",
        event_name="compute",
        **{"default_aggregation[formula]": "sum"},
    )
    product = await made(stripe, "products", name="Team")
    monthly = {"currency": "usd", "product": product["id"], "recurring[interval]": "month"}
    by_seat = {"lookup_key": "team_seat", "metadata[seats]": "true", **monthly}
    seat = await made(stripe, "prices", unit_amount="900", **by_seat)
    metered = {"recurring[usage_type]": "metered", "recurring[meter]": meter["id"]}
    compute = await made(stripe, "prices", unit_amount="1", **monthly, **metered)
    return Shop(stripe, seat["id"], compute["id"])


@pytest.fixture
async def api(stripe: Stripe) -> AsyncIterator[SubscriptionApi]:
    """Return the calls about subscriptions."""
    async with StripeCalls(DEFAULT_KEY, stripe.url, Metrics(CollectorRegistry())) as calls:
        yield SubscriptionApi(calls)


@pytest.fixture
def service(spawn: Spawn, environment: dict[str, str], tmp_path: Path) -> ServerProcess:
    """Return the service with an endpoint and a plan file, not started yet."""
    plans = tmp_path / "plans.yaml"
    plans.write_text(PLANS, encoding="utf-8")
    return spawn({**environment, "STRIPE_WEBHOOK_SECRET": SECRET, "PLANS_FILE": str(plans)})


async def send(
    service: ServerProcess, event_type: str, subject: dict[str, Any], secret: str = SECRET
) -> int:
    """Send a webhook as Stripe does; return the answer's status."""
    body = json.dumps(
        {
            "id": f"evt_{time.monotonic_ns()}",
            "object": "event",
            "type": event_type,
            "livemode": False,
            "created": int(time.time()),
            "data": {"object": subject},
        }
    )
    headers = {
        "Content-Type": "application/json",
        "Stripe-Signature": sdk.WebhookSignature.generate_signature_header(body, secret),
    }
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{service.url}/webhooks/stripe", data=body) as answer,
    ):
        return answer.status


async def announced(vhost: Vhost, seats: int) -> SubscriptionChanged:
    """Return the first announcement of so many seats, once there is one.

    The sweep begins with the service, and may announce what a webhook does.
    """

    async def read() -> list[SubscriptionChanged]:
        messages = await vhost.peek(SUBSCRIPTION_CHANGED_QUEUE)
        changes = [read_event(each.body, [SubscriptionChanged]).data for each in messages]
        return [each for each in changes if each.seats == seats]

    return (await eventually(read, bool))[0]


async def test_a_webhook_becomes_an_announcement_of_what_stripe_has(
    bench: Bench, service: ServerProcess, shop: Shop, vhost: Vhost
) -> None:
    """Its plan, seats, meters and period; an upgrade follows, a forged webhook does not."""
    data = user()
    await bench.keep(data)
    subscribed = await shop.subscribe(await bench.provisioner.provision(data.user_id), 3)
    await start(service)

    sent = await send(service, "customer.subscription.created", {**subscribed, "items": "forged"})
    first = await announced(vhost, 3)
    seats = subscribed["items"]["data"][0]["id"]
    await made(shop.stripe, f"subscription_items/{seats}", quantity="8")
    forged = await send(service, "customer.subscription.updated", subscribed, "whsec_wrong")
    entitled = {"object": "entitlements.active_entitlement_summary"}
    customer = {"customer": subscribed["customer"]}
    summary = "entitlements.active_entitlement_summary.updated"
    changed = await send(service, summary, {**entitled, **customer})
    last = await announced(vhost, 8)

    assert (sent, forged, changed) == (200, 400, 200)
    assert (first.account_id, first.stripe_customer_id) == (data.user_id, subscribed["customer"])
    assert (first.plan_type, first.status, first.seats) == ("team", "trialing", 3)
    assert [item.meter for item in first.items] == [None, "compute"]
    assert first.period_end == first.trial_end
    assert (last.seats, last.plan_since) == (8, first.plan_since)
    assert last.revision > first.revision


async def test_a_deleted_customer_is_shown(
    bench: Bench,
    service: ServerProcess,
    shop: Shop,
    database: Database,
    environment: dict[str, str],
) -> None:
    """With its subscription, which ended with it."""
    data = user()
    await bench.keep(data)
    customer_id = await bench.provisioner.provision(data.user_id)
    subscribed = await shop.subscribe(customer_id, 1)
    await start(service)
    await send(service, "customer.subscription.created", subscribed)
    store = SubscriptionStore(database)
    await eventually(lambda: store.of_account(data.user_id), bool)

    bench.stripe.delete(customer_id)
    await send(service, "customer.deleted", {"object": "customer", "id": customer_id})

    counts = ProfileReader(database).counts
    await eventually(counts, lambda found: found.customer_deleted == 1)
    explained = await Command(environment).run("explain", str(data.user_id))
    assert "the customer was deleted at Stripe" in explained[1]
    assert f"subscription {subscribed['id']}: " in explained[1]


async def test_a_key_without_the_right_stops_no_user(
    service: ServerProcess, bench: Bench, shop: Shop, vhost: Vhost
) -> None:
    """The webhook's message waits in a retry tier, and goes on once the key has the right."""
    data = user()
    await bench.keep(data)
    customer_id = await bench.provisioner.provision(data.user_id)
    subscribed = await shop.subscribe(customer_id, 1)
    keys = bench.stripe.account.keys
    keys.put(DEFAULT_KEY, KeyState.RESTRICTED, CUSTOMERS)
    await start(service)

    await send(service, "customer.subscription.created", subscribed)
    await eventually(lambda: requests(bench.stripe, f"/v1/subscriptions/{subscribed['id']}"), bool)
    other = user()
    await bench.keep(other)
    await bench.provisioner.provision(other.user_id)
    keys.put(DEFAULT_KEY, KeyState.VALID)

    assert (await announced(vhost, 1)).account_id == data.user_id
    assert await vhost.dead_letters(STRIPE_CHANGED_QUEUE) == []


async def requests(stripe: Stripe, path: str) -> list[dict[str, Any]]:
    """Return the requests for a path."""
    return stripe.requests("GET", path)


async def test_a_missing_right_is_named_and_leaves_the_circuit_closed(
    stripe: Stripe, api: SubscriptionApi
) -> None:
    """By `check`, and by whoever needs it."""
    assert await api.missing_rights() == []
    stripe.account.keys.put(DEFAULT_KEY, KeyState.RESTRICTED, CUSTOMERS)

    missing = await api.missing_rights()
    with pytest.raises(RightMissingError, match="Subscriptions: read"):
        await api.page(None)
    await StripeApi(api._calls).retrieve("cus_any")

    assert missing == ["Subscriptions: read", "Products: read", "Billing meters: read"]


async def test_all_subscriptions_are_read_page_by_page(
    stripe: Stripe, api: SubscriptionApi, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended ones too, each with all of its items; products and meters are asked for once."""
    monkeypatch.setattr("customer_provisioner.stripe.subscriptions.PAGE", 2)
    customer = await made(stripe, "customers", email="ada@example.com")
    ids = [(await shop.subscribe(customer["id"], n))["id"] for n in range(1, 4)]
    stripe.account.subscriptions.cancel(ids[0])

    first, after = await api.page(None)
    second, end = await api.page(after)

    assert sorted(each.subscription_id for each in (*first, *second)) == sorted(ids)
    assert (len(first), end) == (2, None)
    assert {each.status for each in second} == {"canceled"}
    assert sorted(await api.of_customer(customer["id"])) == sorted(ids)
    assert len(stripe.requests("GET", f"/v1/products/{first[0].items[0].product_id}")) == 1
    assert await api.fetch(ids[2]) in first


def add_endpoint(stripe: Stripe, service: ServerProcess) -> None:
    """Have the local Stripe send the service the events that it follows."""
    account = stripe.account
    types = ["customer.subscription.updated", "customer.subscription.created"]
    params = {"url": f"{service.url}/webhooks/stripe", "enabled_events": types}
    account.webhook_endpoints.create(params, account.clock.now(), SECRET)


async def test_events_that_come_twice_and_shuffled_leave_the_last_change(
    bench: Bench, service: ServerProcess, shop: Shop, database: Database, vhost: Vhost
) -> None:
    """As the local Stripe sends them, while the subscription goes on changing."""
    data = user()
    await bench.keep(data)
    customer_id = await bench.provisioner.provision(data.user_id)
    await start(service)
    add_endpoint(shop.stripe, service)
    faults = shop.stripe.account.deliveries.faults
    faults.add(DeliveryFault.read({"kind": "twice", "times": None, "seconds": 0.2, "seed": 1}))
    faults.add(DeliveryFault.read({"kind": "shuffled", "times": None, "seconds": 1.0, "seed": 2}))

    subscribed = await shop.subscribe(customer_id, 1)
    item = subscribed["items"]["data"][0]["id"]
    for seats in range(2, 12):
        await made(shop.stripe, f"subscription_items/{item}", quantity=str(seats))

    store = SubscriptionStore(database)

    async def seats_now() -> int | None:
        found = await store.of_account(data.user_id)
        return found[0].snapshot.seats if found else None

    assert await eventually(seats_now, lambda seats: seats == 11) == 11
    await settled(vhost)
    assert await seats_now() == 11
    assert await vhost.dead_letters(STRIPE_CHANGED_QUEUE) == []


async def test_a_lost_event_is_repaired_by_the_sweep(
    bench: Bench, service: ServerProcess, shop: Shop, vhost: Vhost
) -> None:
    """Also what was subscribed to before the service had an endpoint."""
    data = user()
    await bench.keep(data)
    await shop.subscribe(await bench.provisioner.provision(data.user_id), 4)

    await start(service)

    found = await announced(vhost, 4)
    assert (found.account_id, found.plan_type) == (data.user_id, "team")
