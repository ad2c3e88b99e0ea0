"""`plans ensure`: what the plan file has is made at Stripe, once; what is paid is never edited."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from customer_provisioner.ensuring import ensure
from customer_provisioner.metrics import Metrics
from customer_provisioner.stripe.calls import StripeCalls
from customer_provisioner.stripe.catalogue import CatalogueApi
from local_stack.catalogue import base_environment
from nexus_messaging.errors import PermanentError, TransientError
from nexus_plans import Plans
from nexus_plans.reading import read
from stripe_emulator.faults import Fault
from stripe_emulator.keys import KeyState
from stripe_emulator.running import DEFAULT_KEY
from support.leak_check import leaks

from .conftest import Stripe

EXAMPLE = Path("deploy/plans.yaml")
ADMIN_KEY = "sk_test_of_an_administrator"
CHEAP, DEAR = "unit_amount: 2000", "unit_amount: 2500"
WRITES = ("/v1/billing/meters", "/v1/products", "/v1/prices", "/v1/entitlements/features")


def plans_with(before: str = "", after: str = "") -> Plans:
    """Return the example's plans with a change."""
    text = EXAMPLE.read_text(encoding="utf-8")
    assert before in text
    return read(text.replace(before, after).encode(), "plans.yaml")


PLANS = plans_with()
RAISED = plans_with(CHEAP, DEAR)


@pytest.fixture
async def api(stripe: Stripe) -> AsyncIterator[CatalogueApi]:
    """Return the calls of an administrator."""
    async with StripeCalls(DEFAULT_KEY, stripe.url, Metrics(CollectorRegistry())) as calls:
        yield CatalogueApi(calls)


def written(stripe: Stripe) -> list[dict[str, Any]]:
    """Return every request that could change something."""
    return [each for each in stripe.account.request_log.requests(10_000) if each["method"] != "GET"]


def price(stripe: Stripe, key: str) -> dict[str, Any]:
    """Return the price that has a lookup key."""
    [found] = [each for each in prices(stripe) if each["lookup_key"] == key]
    return found


def prices(stripe: Stripe) -> list[dict[str, Any]]:
    """Return all prices, the newest first."""
    return list(stripe.account.prices.objects.newest_first())


def subscribe(stripe: Stripe, price_id: str, quantity: int = 1) -> dict[str, Any]:
    """Have a customer subscribe to a price."""
    account = stripe.account
    customer = account.customers.create({}, account.clock.now())
    items = [{"price": price_id, "quantity": quantity}]
    return account.subscriptions.create({"customer": customer["id"], "items": items})


async def test_everything_in_the_file_is_made_as_it_says(stripe: Stripe, api: CatalogueApi) -> None:
    """Meters that sum, licensed and metered prices, both kinds of tiers, seats, features."""
    await ensure(PLANS, api, execute=True)

    meters = {name: stripe.account.meters.active_for(name) for name in PLANS.meter_names}
    assert {each.formula for each in meters.values() if each} == {"sum"}
    assert meters["llm_cost_micros"] is not None
    assert meters["llm_cost_micros"].display_name == "LLM cost"
    monthly = price(stripe, "nexus_pro_monthly")
    assert (monthly["product"], monthly["unit_amount"]) == ("nexus_pro", 2000)
    assert monthly["metadata"] == {"plan_type": "pro"}
    assert price(stripe, "nexus_enterprise_seats")["metadata"]["seats"] == "true"
    runs = price(stripe, "nexus_pro_runs")
    assert meters["tool_call_executed"] is not None
    assert runs["recurring"]["meter"] == meters["tool_call_executed"].id
    assert (runs["billing_scheme"], runs["tiers_mode"]) == ("tiered", "graduated")
    assert [(tier["up_to"], tier["unit_amount_decimal"]) for tier in runs["tiers"]] == [
        (10_000, "0"),
        (100_000, "0.5"),
        (None, "0.2"),
    ]
    assert price(stripe, "nexus_enterprise_runs")["tiers_mode"] == "volume"
    assert price(stripe, "nexus_pro_llm_cost")["unit_amount_decimal"] == "0.0001"
    assert stripe.account.products.objects.get("nexus_enterprise")["unit_label"] == "seat"


async def test_subscribers_of_a_plan_have_its_features_alone(
    stripe: Stripe, api: CatalogueApi
) -> None:
    """A product that several plans sell gives what all of them have."""
    await ensure(PLANS, api, execute=True)

    features = stripe.account.features

    def given(*products: str) -> set[str]:
        return {each["lookup_key"] for each in features.entitlements("cus_1", products)}

    assert given("nexus_pro", "nexus_runs", "nexus_llm_cost", "nexus_premium") == {"export"}
    assert given("nexus_enterprise", "nexus_runs") == {"export", "audit-log"}


async def test_without_execute_nothing_is_written(stripe: Stripe, api: CatalogueApi) -> None:
    """The diff is the same as that of the run that makes it."""
    printed = await ensure(PLANS, api, execute=False)
    assert written(stripe) == []

    made = await ensure(PLANS, api, execute=True)

    def shown(changes: list[Any]) -> list[tuple[str, str, str, str]]:
        return [(each.kind, each.name, each.action, each.detail) for each in changes]

    assert shown(printed) == shown(made)


async def test_second_run_has_nothing_to_do(stripe: Stripe, api: CatalogueApi) -> None:
    """What Stripe shows is found again by its names, tiers and decimals too."""
    await ensure(PLANS, api, execute=True)
    before = len(written(stripe))

    again = await ensure(PLANS, api, execute=True)

    assert {each.action.value for each in again} == {"ok"}
    assert len(written(stripe)) == before


async def test_every_write_has_an_idempotency_key(stripe: Stripe, api: CatalogueApi) -> None:
    """So none is made twice by a request that is repeated."""
    await ensure(PLANS, api, execute=True)

    keys = [each["idempotency_key"] for each in written(stripe)]
    assert all(keys)
    assert len(set(keys)) == len(keys)


async def test_two_runs_at_once_make_nothing_twice(stripe: Stripe) -> None:
    """Neither fails, and there is one price for each lookup key and one replacement."""

    async def one(plans: Plans) -> None:
        async with StripeCalls(DEFAULT_KEY, stripe.url, Metrics(CollectorRegistry())) as calls:
            await ensure(plans, CatalogueApi(calls), execute=True)

    await asyncio.gather(one(PLANS), one(PLANS), one(PLANS))
    wanted = sum(len(plan.prices) for plan in PLANS.plans.values())
    assert len(prices(stripe)) == wanted
    assert len(list(stripe.account.features.objects.newest_first())) == 2

    await asyncio.gather(one(RAISED), one(RAISED), one(RAISED))
    assert len(prices(stripe)) == wanted + 1


async def test_a_changed_price_takes_over_the_lookup_key(stripe: Stripe, api: CatalogueApi) -> None:
    """Who has the old price keeps it, with its amount and its plan; it stays active."""
    await ensure(PLANS, api, execute=True)
    old = price(stripe, "nexus_pro_monthly")
    subscribe(stripe, old["id"])

    changes = await ensure(RAISED, api, execute=True)

    [change] = [each for each in changes if each.due]
    assert change.action.value == "replace"
    assert "unit_amount 2000 -> 2500" in change.detail
    new = price(stripe, "nexus_pro_monthly")
    assert (new["unit_amount"], new["metadata"]["replaces"]) == (2500, old["id"])
    kept = stripe.account.prices.objects.get(old["id"])
    assert kept == {**old, "lookup_key": None}
    assert RAISED.plan_of_item(kept["lookup_key"], {}, kept["metadata"]) == "pro"


async def test_an_old_price_that_nobody_had_is_archived(stripe: Stripe, api: CatalogueApi) -> None:
    """It can't be sold by mistake any more."""
    await ensure(PLANS, api, execute=True)
    old = price(stripe, "nexus_pro_monthly")["id"]

    await ensure(RAISED, api, execute=True)

    assert stripe.account.prices.objects.get(old)["active"] is False
    assert price(stripe, "nexus_pro_monthly")["active"] is True


@pytest.mark.parametrize("used", [False, True])
async def test_the_default_price_of_a_product_is_replaced_as_such(
    stripe: Stripe, api: CatalogueApi, *, used: bool
) -> None:
    """As the dashboard makes the first price of a product; Stripe would not archive it."""
    await ensure(PLANS, api, execute=True)
    account, old = stripe.account, price(stripe, "nexus_pro_monthly")["id"]
    account.update_product("nexus_pro", {"default_price": old})
    if used:
        subscribe(stripe, old)

    changes = await ensure(RAISED, api, execute=True)

    product = account.products.objects.get("nexus_pro")
    assert product["default_price"] == price(stripe, "nexus_pro_monthly")["id"]
    assert account.prices.objects.get(old)["active"] is used
    assert [each.action.value for each in changes if each.due][:2] == ["replace", "move"]
    assert {each.action.value for each in await ensure(RAISED, api, execute=False)} == {"ok"}


async def test_a_price_that_was_replaced_twice_leaves_none_behind(
    stripe: Stripe, api: CatalogueApi
) -> None:
    """The first run stopped before it had archived the first price, and the file changed again."""
    await ensure(PLANS, api, execute=True)
    first = price(stripe, "nexus_pro_monthly")["id"]
    refused = {"kind": "status", "status": 400, "path_prefix": f"/v1/prices/{first}"}
    stripe.account.faults.add(Fault.read({"method": "POST", **refused, "times": None}))
    with pytest.raises(PermanentError):
        await ensure(RAISED, api, execute=True)
    second = price(stripe, "nexus_pro_monthly")["id"]
    stripe.account.faults.remove()

    await ensure(plans_with(CHEAP, "unit_amount: 3000"), api, execute=True)

    found = {each: stripe.account.prices.objects.get(each)["active"] for each in (first, second)}
    assert found == {first: False, second: False}
    assert price(stripe, "nexus_pro_monthly")["active"] is True


async def test_an_old_price_of_a_cancelled_subscription_stays_active(
    stripe: Stripe, api: CatalogueApi
) -> None:
    """Somebody had it, and may come back to it."""
    await ensure(PLANS, api, execute=True)
    old = price(stripe, "nexus_pro_monthly")["id"]
    stripe.account.subscriptions.cancel(subscribe(stripe, old)["id"])

    await ensure(RAISED, api, execute=True)

    assert stripe.account.prices.objects.get(old)["active"] is True


async def test_a_price_made_by_hand_is_marked_with_its_plan_before_it_loses_its_key(
    stripe: Stripe, api: CatalogueApi
) -> None:
    """Else its subscribers would be without a plan and without seats."""
    account = stripe.account
    account.products.create({"id": "by_hand", "name": "By hand"}, account.clock.now())
    described = {
        "currency": "usd",
        "lookup_key": "nexus_enterprise_seats",
        "product": "by_hand",
        "recurring": {"interval": "month"},
        "unit_amount": 5000,
    }
    old = account.prices.create(described, account.clock.now())
    subscribe(stripe, old["id"], 7)

    await ensure(PLANS, api, execute=True)

    kept = account.prices.objects.get(old["id"])
    assert (kept["lookup_key"], kept["unit_amount"], kept["active"]) == (None, 5000, True)
    assert PLANS.plan_of_item(None, {}, kept["metadata"]) == "enterprise"
    assert PLANS.seats_price(None, kept["metadata"])


async def test_a_price_that_can_not_be_marked_keeps_its_key(
    stripe: Stripe, api: CatalogueApi
) -> None:
    """Its subscribers' plan comes before the new amount."""
    await ensure(PLANS, api, execute=True)
    account, old = stripe.account, price(stripe, "nexus_pro_monthly")["id"]
    account.prices.update(old, {"metadata": {"plan_type": ""}}, account.clock.now())
    refused = {"kind": "status", "status": 400, "path_prefix": f"/v1/prices/{old}", "times": None}
    account.faults.add(Fault.read({"method": "POST", **refused}))

    with pytest.raises(PermanentError):
        await ensure(RAISED, api, execute=True)

    assert price(stripe, "nexus_pro_monthly")["id"] == old


async def test_what_was_archived_is_activated(stripe: Stripe, api: CatalogueApi) -> None:
    """Of prices, products and features none is made anew, also within a day."""
    await ensure(PLANS, api, execute=True)
    account, now = stripe.account, stripe.account.clock.now()
    archived = price(stripe, "nexus_pro_monthly")["id"]
    feature = next(account.features.objects.newest_first())["id"]

    for _ in range(2):
        account.prices.update(archived, {"active": False}, now)
        account.products.update("nexus_pro", {"active": False}, now)
        account.features.update(feature, {"active": False}, now)
        changes = await ensure(PLANS, api, execute=True)

        assert [each.kind for each in changes if each.action.value == "activate"] == [
            "feature",
            "product",
            "price",
        ]
        assert account.prices.objects.get(archived)["active"] is True
        assert account.products.objects.get("nexus_pro")["active"] is True
        assert account.features.objects.get(feature)["active"] is True


async def test_what_differs_is_told_and_left(stripe: Stripe, api: CatalogueApi) -> None:
    """A meter that counts otherwise, a renamed product, a feature too many."""
    account, now = stripe.account, stripe.account.clock.now()
    counting = {
        "display_name": "Other",
        "event_name": "unique_tools",
        "default_aggregation": {"formula": "count"},
    }
    account.meters.create(counting, now)
    await ensure(PLANS, api, execute=True)
    account.products.update("nexus_pro", {"name": "Renamed"}, now)
    extra = account.features.create({"lookup_key": "extra", "name": "Extra"}, now)
    account.features.attach("nexus_runs", {"entitlement_feature": extra["id"]})
    before = len(written(stripe))

    changes = await ensure(PLANS, api, execute=True)

    assert {(each.name, each.detail) for each in changes if each.action.value == "differs"} == {
        ("unique_tools", "formula is 'count', must be 'sum'"),
        ("nexus_pro", "name is 'Renamed'"),
        ("nexus_runs", "has features that its plans have not: extra"),
    }
    assert len(written(stripe)) == before


@pytest.mark.parametrize("after", [0, 3, 11, 16, 25])
async def test_a_run_that_stopped_is_finished_by_the_next(
    stripe: Stripe, api: CatalogueApi, after: int
) -> None:
    """Wherever it stopped, after a request had its effect."""
    made = 0
    make = api.make

    async def stopping(change: Any, number: int) -> None:
        nonlocal made
        await make(change, number)
        made += 1
        if made > after:
            raise TransientError("stopped")

    api.make = stopping  # type: ignore[method-assign]
    with pytest.raises(TransientError):
        await ensure(PLANS, api, execute=True)
    api.make = make  # type: ignore[method-assign]

    await ensure(PLANS, api, execute=True)

    assert {each.action.value for each in await ensure(PLANS, api, execute=False)} == {"ok"}
    assert len(prices(stripe)) == sum(len(plan.prices) for plan in PLANS.plans.values())


@pytest.mark.parametrize("kind", ["reset", "server_error"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("path", WRITES)
async def test_a_lost_or_failed_answer_makes_nothing_twice(
    stripe: Stripe, api: CatalogueApi, kind: str, when: str, path: str
) -> None:
    """The same key where the outcome may still come, the next one where Stripe keeps a 500."""
    fault = {"kind": kind, "when": when, "method": "POST", "path_prefix": path}
    stripe.account.faults.add(Fault.read(fault))

    await ensure(PLANS, api, execute=True)

    assert {each.action.value for each in await ensure(PLANS, api, execute=False)} == {"ok"}
    assert len(prices(stripe)) == sum(len(plan.prices) for plan in PLANS.plans.values())


@pytest.mark.parametrize("kind", ["reset", "server_error", "html_503", "conflict", "lock_timeout"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_price_is_replaced_once_when_an_answer_is_lost_or_failed(
    stripe: Stripe, api: CatalogueApi, kind: str, when: str
) -> None:
    """A second replacement would take the lookup key from the first, and leave it behind."""
    await ensure(PLANS, api, execute=True)
    before = len(prices(stripe))
    fault = {"kind": kind, "when": when, "method": "POST", "path_prefix": "/v1/prices"}
    stripe.account.faults.add(Fault.read(fault))

    await ensure(RAISED, api, execute=True)

    assert len(prices(stripe)) == before + 1
    assert price(stripe, "nexus_pro_monthly")["unit_amount"] == 2500


async def test_a_refusal_that_stripe_repeats_does_not_last(
    stripe: Stripe, api: CatalogueApi
) -> None:
    """A request that was refused, and is right now, is made under the next key."""
    account, now = stripe.account, stripe.account.clock.now()
    account.products.create({"id": "nexus_pro", "name": "Nexus Pro"}, now)
    refused = {"kind": "status", "status": 400, "method": "POST", "path_prefix": "/v1/prices"}
    fault = account.faults.add(Fault.read({**refused, "times": None}))
    with pytest.raises(PermanentError, match="status 400"):
        await ensure(PLANS, api, execute=True)
    account.faults.remove(fault)

    await ensure(PLANS, api, execute=True)

    assert {each.action.value for each in await ensure(PLANS, api, execute=False)} == {"ok"}


async def run(stripe: Stripe, *arguments: str, **settings: str) -> tuple[int | None, str, str]:
    """Run the program; return its exit code and what it printed, without the key."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "customer_provisioner", *arguments),
        env={
            **base_environment(),
            "STRIPE_ADMIN_KEY": ADMIN_KEY,
            "STRIPE_API_BASE": stripe.url,
            "PLANS_FILE": str(EXAMPLE),
            **settings,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = (each.decode() for each in await asyncio.wait_for(process.communicate(), 60))
    assert leaks({"output": out + err}, {ADMIN_KEY}) == []
    return process.returncode, out, err


async def test_the_command_prints_a_diff_and_makes_it_on_execute(stripe: Stripe) -> None:
    """With the administrator's key alone: no broker, no database, no key of a service."""
    stripe.account.keys.put(ADMIN_KEY, KeyState.VALID)

    code, dry, err = await run(stripe, "plans", "ensure")
    assert (code, err, written(stripe)) == (0, "", [])
    assert "meter premium_tool_calls: create: Premium tool calls" in dry
    assert "price nexus_pro_monthly: create: pro" in dry
    assert dry.endswith("changes to make (test mode); nothing was made: add --execute\n")

    code, out, err = await run(stripe, "plans", "ensure", "--execute")
    assert (code, err) == (0, "")
    assert out.endswith("changes made (test mode)\n")
    assert await run(stripe, "plans", "ensure") == (
        0,
        "".join(f"{line.partition(': ')[0]}: ok\n" for line in distinct(out))
        + "nothing to do (test mode)\n",
        "",
    )


def distinct(printed: str) -> list[str]:
    """Return the first line about each thing, in the order of a run without changes."""
    lines = [line for line in printed.splitlines() if ": attach" not in line]
    return lines[:-1]


async def test_another_meter_of_all_runs_than_the_services_have_is_refused(
    stripe: Stripe,
) -> None:
    """Prices would charge a meter that no run is reported on."""
    stripe.account.keys.put(ADMIN_KEY, KeyState.VALID)

    code, out, err = await run(
        stripe, "plans", "ensure", "--execute", STRIPE_METER_EVENT_NAME="other_runs"
    )

    assert (code, out, written(stripe)) == (2, "", [])
    assert "PLANS_FILE: its default_meter must be the meter of STRIPE_METER_EVENT_NAME" in err


async def test_the_command_prints_json_for_programs(stripe: Stripe) -> None:
    """One object for each thing; `differs` is an exit code of its own."""
    stripe.account.keys.put(ADMIN_KEY, KeyState.VALID)
    now = stripe.account.clock.now()
    stripe.account.products.create({"id": "nexus_runs", "name": "Other"}, now)

    code, out, _ = await run(stripe, "plans", "ensure", "--json", "--execute")

    facts = [json.loads(line) for line in out.splitlines()]
    assert code == 1
    assert {"kind", "name", "action", "detail", "done"} == set(facts[0])
    assert [each["name"] for each in facts if each["action"] == "differs"] == ["nexus_runs"]
    assert all(each["done"] for each in facts if each["action"] == "create")


async def test_the_command_names_the_right_that_a_key_lacks(stripe: Stripe) -> None:
    """A service's key is refused by Stripe, and nothing is made."""
    rights = frozenset({"rak_billing_meter_read", "rak_billing_meter_write"})
    stripe.account.keys.put(ADMIN_KEY, KeyState.RESTRICTED, rights)

    code, _, err = await run(stripe, "plans", "ensure")

    assert code == 1
    assert "the key lacks the right Entitlements: write" in err


async def test_the_command_names_the_key_that_is_refused(stripe: Stripe) -> None:
    """Whoever mistypes it is not left with a status."""
    code, _, err = await run(stripe, "plans", "ensure")

    assert code == 1
    assert "Stripe refuses the key in STRIPE_ADMIN_KEY" in err


async def test_without_a_plan_file_the_command_says_so(stripe: Stripe) -> None:
    """A wrong setting is exit code 2."""
    code, _, err = await run(stripe, "plans", "ensure", PLANS_FILE="")

    assert code == 2
    assert "PLANS_FILE: not set" in err
