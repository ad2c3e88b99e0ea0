"""Events on their way to webhook endpoints: signed, repeated, late, twice, lost, out of order."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import stripe

from stripe_emulator import EmulatorClient, RunningEmulator, Webhook, running_emulator
from stripe_emulator.delivery_faults import DeliveryFault, DeliveryFaultKind

SECRET = "whsec_of_the_tests"
Receiver = Any
Eventually = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]
HOUR = 3600


@pytest.fixture
async def price(sdk: Any) -> Any:
    """A monthly price."""
    product = await sdk.v1.products.create_async({"name": "Pro"})
    described = {"product": product.id, "currency": "usd", "unit_amount": 1900}
    return await sdk.v1.prices.create_async(described | {"recurring": {"interval": "month"}})


@pytest.fixture
async def subscribe(sdk: Any, customer_id: str, price: Any) -> Callable[[], Awaitable[Any]]:
    """Create a subscription; made before any endpoint is there, customer and price send nothing."""

    async def subscribe() -> Any:
        items = [{"price": price.id, "quantity": 1}]
        return await sdk.v1.subscriptions.create_async({"customer": customer_id, "items": items})

    return subscribe


async def test_an_event_is_signed_and_has_the_object_after_the_change(
    sdk: Any, subscribe: Any, receiver: Receiver, endpoint: str, eventually: Eventually
) -> None:
    """The SDK takes it, and an upgrade says what was before."""
    made = await subscribe()
    await sdk.v1.subscriptions.update_async(made.id, {"metadata": {"plan_type": "pro"}})

    await eventually(lambda: _has(receiver, 2))

    parsed = [sdk.construct_event(*each, SECRET) for each in receiver.got]
    created, updated = sorted(parsed, key=lambda event: event.type)
    assert created.data.object.id == made.id
    assert created.data.object["items"].data[0].price.unit_amount == 1900
    assert updated.data.object.metadata["plan_type"] == "pro"
    assert updated.data.previous_attributes.to_dict() == {"metadata": {}}
    assert endpoint.startswith("we_")


async def test_the_object_changes_before_its_event_arrives(
    sdk: Any, subscribe: Any, receiver: Receiver, endpoint: str, inspection: EmulatorClient
) -> None:
    """Who fetches on the first event sees the second change already."""
    await inspection.add_webhook_fault("held", times=None)
    made = await subscribe()
    await sdk.v1.subscriptions.cancel_async(made.id)

    first, second = await inspection.webhooks()
    await inspection.release_webhooks(second["id"], first["id"])

    assert receiver.types == ["customer.subscription.deleted", "customer.subscription.created"]
    assert [event["data"]["object"]["status"] for event in receiver.events] == [
        "canceled",
        "active",
    ]
    assert first["endpoint"] == endpoint


async def test_a_change_of_entitlements_has_an_event_of_its_own(
    sdk: Any, subscribe: Any, price: Any, receiver: Receiver, endpoint: str, eventually: Eventually
) -> None:
    """Two events of one change; the second names the customer and no object with an id."""
    feature = await sdk.v1.entitlements.features.create_async({"lookup_key": "x", "name": "X"})
    described = {"entitlement_feature": feature.id}
    await sdk.v1.products.features.create_async(price.product, described)

    made = await subscribe()

    await eventually(lambda: _has(receiver, 2))
    [summary] = [each for each in receiver.events if each["type"].startswith("entitlements.")]
    entitled = summary["data"]["object"]
    assert "customer.subscription.created" in receiver.types
    assert (entitled["customer"], "id" in entitled) == (made.customer, False)
    assert [one["lookup_key"] for one in entitled["entitlements"]["data"]] == ["x"]
    assert endpoint


async def test_customers_have_events(
    sdk: Any, receiver: Receiver, endpoint: str, eventually: Eventually
) -> None:
    """Of their creation, change and deletion; an endpoint gets those that it asked for."""
    await sdk.v1.webhook_endpoints.update_async(
        endpoint, {"enabled_events": ["customer.updated", "customer.deleted"]}
    )
    customer = await sdk.v1.customers.create_async({"name": "Ada"})
    await sdk.v1.customers.update_async(customer.id, {"name": "Grace"})
    await sdk.v1.customers.delete_async(customer.id)

    await eventually(lambda: _has(receiver, 2))

    assert sorted(receiver.types) == ["customer.deleted", "customer.updated"]


@pytest.mark.parametrize(
    ("kind", "deliveries"), [("twice", 2), ("lost", 0), ("late", 1), ("shuffled", 1)]
)
async def test_a_fault_applies_to_the_first_event(
    subscribe: Any,
    receiver: Receiver,
    endpoint: str,
    inspection: EmulatorClient,
    eventually: Eventually,
    kind: str,
    deliveries: int,
) -> None:
    """The next subscription's event comes as usual."""
    await inspection.add_webhook_fault(kind, type_prefix="customer.subscription.")
    first, second = await subscribe(), await subscribe()

    await eventually(lambda: _has(receiver, deliveries + 1))

    objects = [event["data"]["object"]["id"] for event in receiver.events]
    assert sorted(objects) == sorted([first.id] * deliveries + [second.id])
    assert endpoint


async def test_a_late_event_is_overtaken(
    subscribe: Any,
    receiver: Receiver,
    endpoint: str,
    inspection: EmulatorClient,
    eventually: Eventually,
) -> None:
    """It comes once the clock has come so far."""
    await inspection.add_webhook_fault("late", seconds=HOUR)
    first, second = await subscribe(), await subscribe()

    await eventually(lambda: _has(receiver, 1))
    await inspection.advance_clock(HOUR)
    await eventually(lambda: _has(receiver, 2))

    objects = [event["data"]["object"]["id"] for event in receiver.events]
    assert objects == [second.id, first.id]
    assert endpoint


@pytest.mark.parametrize("status", [500, 302, None])
async def test_what_is_not_taken_is_sent_again_for_three_days(
    subscribe: Any,
    receiver: Receiver,
    endpoint: str,
    inspection: EmulatorClient,
    eventually: Eventually,
    status: int | None,
) -> None:
    """Each time signed anew; a receiver that does not answer in time has not taken it."""
    await inspection.set_options(webhook_timeout_seconds=0.2)
    receiver.status = status
    await subscribe()

    for attempts in range(1, 11):

        async def was_attempted(attempts: int = attempts) -> bool:
            [delivery] = await inspection.webhooks()
            return len(delivery["attempts"]) == attempts

        await eventually(was_attempted)
        await inspection.advance_clock(12 * HOUR)

    [delivery] = await inspection.webhooks()
    assert delivery["state"] == "failed"
    assert {attempt["status"] for attempt in delivery["attempts"]} == {status}
    assert len({event["id"] for event in receiver.events}) == 1
    assert endpoint == delivery["endpoint"]


async def test_the_waits_between_attempts_can_be_scaled(
    subscribe: Any,
    receiver: Receiver,
    endpoint: str,
    inspection: EmulatorClient,
    eventually: Eventually,
) -> None:
    """Three days become less than a second."""
    await inspection.set_options(webhook_retry_scale=0.000001)
    receiver.status = 503
    await subscribe()
    await eventually(lambda: _has(receiver, 3))
    receiver.status = 200

    async def is_delivered() -> bool:
        [delivery] = await inspection.webhooks()
        return delivery["state"] == "delivered"

    await eventually(is_delivered)
    assert endpoint


async def test_an_event_is_sent_again_on_demand(
    sdk: Any, subscribe: Any, receiver: Receiver, endpoint: str, inspection: EmulatorClient
) -> None:
    """As with the button in Stripe's dashboard."""
    await inspection.add_webhook_fault("lost")
    made = await subscribe()
    [event] = (await sdk.v1.events.list_async({"type": "customer.subscription.created"})).data

    [sent] = await inspection.resend_webhook(event.id)

    assert (sent["state"], sent["endpoint"]) == ("delivered", endpoint)
    assert receiver.events[0]["data"]["object"]["id"] == made.id


async def test_both_secrets_sign_during_a_rotation(
    emulator: RunningEmulator, sdk: Any, subscribe: Any, receiver: Receiver, endpoint: str
) -> None:
    """Until the old one expires."""
    emulator.account.webhook_endpoints.roll_secret(endpoint, "whsec_next")
    emulator.account.deliveries.faults.add(DeliveryFault(DeliveryFaultKind.HELD))
    await subscribe()
    async with EmulatorClient(emulator.url) as inspection:
        await inspection.release_webhooks()

    for secret in (SECRET, "whsec_next"):
        assert sdk.construct_event(*receiver.got[0], secret)
    with pytest.raises(stripe.SignatureVerificationError):
        sdk.construct_event(*receiver.got[0], "whsec_other")


async def test_a_thin_event_is_sent_without_its_data(
    sdk: Any, receiver: Receiver, endpoint: str, inspection: EmulatorClient, eventually: Eventually
) -> None:
    """Which are fetched by its id.

    Version 16.1 of the SDK can't do that by ``fetch_event_async``: it sends a parameter ``usage``
    that was meant for itself.
    """
    meter = (await sdk.v1.billing.meters.list_async()).data[0]
    related = {"id": meter.id, "type": "billing.meter", "url": f"/v1/billing/meters/{meter.id}"}
    kind = "v1.billing.meter.error_report_triggered"
    data = {"developer_message_summary": "one error", "reason": {"error_count": 1}}
    await inspection.emit(kind, related_object=related, data=data)

    await eventually(lambda: _has(receiver, 1))

    notification = sdk.parse_event_notification(*receiver.got[0], SECRET)
    fetched = await sdk.v2.core.events.retrieve_async(notification.id)
    assert "data" not in receiver.events[0]
    assert (notification.type, notification.related_object.id) == (kind, meter.id)
    assert fetched.data.reason.error_count == 1
    assert endpoint


async def test_an_event_of_live_mode_can_be_made(
    receiver: Receiver, endpoint: str, inspection: EmulatorClient, eventually: Eventually
) -> None:
    """For what must be refused."""
    subject = {"id": "sub_1", "object": "subscription"}
    await inspection.emit("customer.subscription.updated", object=subject, livemode=True)

    await eventually(lambda: _has(receiver, 1))

    assert receiver.events[0]["livemode"] is True
    assert receiver.events[0]["data"] == {"object": subject}
    assert endpoint


async def test_endpoints_can_be_there_from_the_start(
    receiver: Receiver, eventually: Eventually
) -> None:
    """As the command's option makes them; signatures are of this moment whatever the clock says."""
    async with running_emulator(webhooks=[Webhook(receiver.url, SECRET)]) as emulator:
        emulator.account.clock.set(time.time() - 40 * 24 * HOUR)
        emulator.account.customers.create({"name": "Ada"}, emulator.account.clock.now())
        await eventually(lambda: _has(receiver, 1))

    body, signature = receiver.got[0]
    assert stripe.Webhook.construct_event(body, signature, SECRET).type == "customer.created"


async def _has(receiver: Receiver, events: int) -> bool:
    return len(receiver.got) >= events
