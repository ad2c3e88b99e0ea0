"""The three models of docs/pricing.md: their plan files, from `plans ensure` to sums at Stripe."""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import pytest

from nexus_contracts import Event, ToolExecuted
from support.events import second_version, tool_run, user_created
from support.platform import Platform
from support.waiting import eventually

pytestmark = pytest.mark.long

FILES = Path("docs/pricing")
PLAN = "SELECT plan_type FROM account_plans WHERE account_id = '{}' ORDER BY since DESC LIMIT 1"
CUSTOMER = "SELECT stripe_customer_id FROM billing_accounts WHERE user_id = '{}'"


class Model:
    """A platform with the plan file of a pricing model."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform

    async def begin(self, file: Path) -> None:
        """Make at Stripe what the file has; then start the services, and follow webhooks."""
        platform, secret = self.platform, f"whsec_{secrets.token_hex(12)}"
        platform.start_stripe()
        platform.settings |= {"PLANS_FILE": str(file), "STRIPE_ADMIN_KEY": platform.stripe_key}
        await platform.run_command("customer_provisioner", "plans", "ensure", "--execute")
        del platform.settings["STRIPE_ADMIN_KEY"]
        platform.settings["STRIPE_WEBHOOK_SECRET"] = secret
        platform.start()
        async with platform.stripe() as stripe:
            url = f"{platform.services['customer-provisioner'].url}/webhooks/stripe"
            await stripe.add_webhook(url, secret)

    async def user(self) -> UUID:
        """Return a new user, who has a customer."""
        user_id = uuid4()
        await self.platform.vhost.publish(user_created(user_id))
        await self.customer(user_id)
        return user_id

    async def customer(self, account: UUID) -> str:
        """Wait for an account's customer."""
        query = CUSTOMER.format(account)
        rows = await eventually(lambda: self.platform.rows("usage_ingest", query), bool)
        return str(rows[0][0])

    async def subscribe(self, account: UUID, plan: str, **quantities: int) -> None:
        """Subscribe to prices, by lookup key; the webhook brings the account its plan."""
        headers = {"Authorization": f"Bearer {self.platform.stripe_key}"}
        form: dict[str, str] = {"customer": await self.customer(account)}
        async with aiohttp.ClientSession(self.platform.emulator_url, headers=headers) as session:
            for number, (key, quantity) in enumerate(quantities.items()):
                async with session.get(f"/v1/prices?lookup_keys[]={key}") as answer:
                    [price] = (await answer.json())["data"]
                form[f"items[{number}][price]"] = price["id"]
                if quantity:
                    form[f"items[{number}][quantity]"] = str(quantity)
            async with session.post("/v1/subscriptions", data=form) as answer:
                assert answer.status == 200, await answer.text()
        query = PLAN.format(account)
        await eventually(
            lambda: self.platform.rows("usage_ingest", query), lambda rows: rows == [(plan,)]
        )

    async def sums(self, customer: str, expected: Mapping[str, float]) -> None:
        """Wait until Stripe has counted these for a customer, by meter, and nothing else."""

        async def counted() -> dict[str, float]:
            async with self.platform.stripe() as stripe:
                sums = await stripe.sums()
            return {row["event_name"]: row["value"] for row in sums if row["customer"] == customer}

        await eventually(counted, lambda sums: sums == expected, within=60)


@pytest.fixture
def model(platform: Platform) -> Model:
    """Return a platform to begin with a plan file."""
    return Model(platform)


def tokens(user: UUID, **details: Any) -> Event[ToolExecuted]:
    """Return a run that used a model."""
    return second_version(tool_run(user), **details)


async def test_margin_is_the_cost_of_tokens_with_the_plans_markup(
    model: Model, tmp_path: Path
) -> None:
    """Cached tokens as each provider counts them; a model without a price is billed later, once."""
    file = tmp_path / "margin.yaml"
    text = (FILES / "margin.yaml").read_text(encoding="utf-8")
    file.write_text(text, encoding="utf-8")
    await model.begin(file)
    user = await model.user()
    await model.subscribe(user, "payg", payg_llm_cost=0)
    claude = {"input_tokens": 1_000, "output_tokens": 200, "cached_tokens": 5_000}
    gpt = {"input_tokens": 10_000, "output_tokens": 1_000, "cached_tokens": 8_000}
    customer = await model.customer(user)

    await model.platform.vhost.publish(
        tokens(user, model="claude-sonnet-4-5-20250929", **claude),
        tokens(user, model="gpt-5", **gpt),
        tokens(user, model="new-model", input_tokens=1_000),
    )
    before = 7_500 * 1.3 + 13_500 * 1.3
    await model.sums(customer, {"tool_call_executed": 3, "llm_cost_micros": before})

    price = "{from: 2025-01-01, input: 2000000, output: 0, cached: 0, source: a list}"
    added = f"  new-model:\n    cached_tokens: part\n    prices:\n      - {price}\n"
    file.write_text(text + added, encoding="utf-8")
    model.platform.relaunch("usage-ingest")
    after = before + 2_000 * 1.3
    await model.sums(customer, {"tool_call_executed": 3, "llm_cost_micros": after})


async def test_premium_runs_of_the_marketplace_are_on_their_own_meter(model: Model) -> None:
    """For who subscribes; without a subscription they are denied, and on no meter."""
    await model.begin(FILES / "marketplace.yaml")
    payer, free = await model.user(), await model.user()
    await model.subscribe(payer, "pro", pro_monthly=1, pro_premium=0)

    await model.platform.vhost.publish(
        *(
            tool_run(user, server_id=server)
            for user in (payer, free)
            for server in ("browser", "sql-eu", "weather")
        )
    )

    counted = {"premium_tool_calls": 2, "tool_call_executed": 1}
    await model.sums(await model.customer(payer), counted)
    await model.sums(await model.customer(free), {"tool_call_executed": 1})


async def test_enterprise_pays_for_seats_runs_and_unique_tools_of_all_users(model: Model) -> None:
    """One customer of the organisation; none of the users' own is charged."""
    await model.begin(FILES / "enterprise.yaml")
    account, users = uuid4(), [await model.user() for _ in range(2)]
    command = model.platform.run_command
    await command("customer_provisioner", "accounts", "create", "Acme", "--id", str(account))
    await model.subscribe(
        account, "enterprise", enterprise_seats=2, enterprise_runs=0, enterprise_unique_tools=0
    )
    for user in users:
        await command("customer_provisioner", "assign", str(user), str(account))
    query = "SELECT count(*) FROM account_assignments"
    await eventually(lambda: model.platform.number("usage_ingest", query), lambda n: n == 2)

    await model.platform.vhost.publish(
        *(tool_run(user, tool_name=tool) for user in users for tool in ("read", "write", "read"))
    )

    counted = {"tool_call_executed": 6, "unique_tools": 2}
    await model.sums(await model.customer(account), counted)
    assert await model.platform.rows(
        "usage_ingest", "SELECT account_id, seats FROM account_subscriptions"
    ) == [(account, 2)]
    for user in users:
        await model.sums(await model.customer(user), {})
