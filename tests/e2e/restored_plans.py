"""What an organisation buys, uses and gets as notices, in a platform that loses its ledger."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import aio_pika

from e2e.restore_scenario import RestoreScenario
from nexus_contracts import ToolExecuted, ToolExecutedV2
from nexus_messaging.topology import NOTICES, SUBSCRIPTION_PREFIX
from support.events import tool_run
from support.platform import Platform
from support.stripe_webhooks import WEBHOOK_SECRET, webhooks_to
from support.waiting import eventually

PLANS: Final = """
version: 1
unknown_users: free
without_subscription: free
meters:
  premium: {display_name: Premium}
  micros: {display_name: Cost}
  tools: {display_name: Unique tools}
routes:
  premium: {servers: [browser], gated: true}
  tokens: {priced: models}
plans:
  free:
    display_name: Free
    limits: [{name: trial, meter: tool_call_executed, limit: 1, tell_at: [100]}]
  team:
    display_name: Team
    lookup_keys: [team_seat]
    premium: [premium]
    meters: {"@premium": premium, "@tokens": micros}
    markup_percent: {"@tokens": 20}
    unique_tools_meter: tools
    limits: [{name: runs, meter: tool_call_executed, limit: 4, tell_at: [50]}]
models:
  known:
    cached_tokens: part
    prices: [{from: 2020-01-01, input: 1000000, output: 2000000, cached: 0, source: a list}]
"""
LATE_MODEL: Final = """
  late:
    cached_tokens: part
    prices: [{from: 2020-01-01, input: 3000000, output: 3000000, cached: 0, source: a list}]
"""
METER: Final = {
    "default_aggregation[formula]": "sum",
    "customer_mapping[type]": "by_id",
    "customer_mapping[event_payload_key]": "stripe_customer_id",
    "value_settings[event_payload_key]": "value",
}
SEAT: Final = {
    "currency": "usd",
    "unit_amount": "5000",
    "recurring[interval]": "month",
    "lookup_key": "team_seat",
    "product_data[name]": "Team",
    "metadata[seats]": "true",
}
MEMBERS: Final = "SELECT DISTINCT user_id, account_id FROM account_assignments"
SUBSCRIBED: Final = """
SELECT account_id, plan_type, status, seats FROM account_subscriptions ORDER BY subscription_id
"""
QUEUE: Final = f"{SUBSCRIPTION_PREFIX}test"

Amounts = Mapping[str, float]


@dataclass
class Organisation:
    """An account with a subscription, one user, and a queue for its notices."""

    scenario: RestoreScenario
    notices: aio_pika.abc.AbstractQueue
    account: UUID
    user: UUID

    @property
    def platform(self) -> Platform:
        """The running platform."""
        return self.scenario.platform

    async def create(self) -> str:
        """Create the account, or again after it was lost; return its customer."""
        create = ("accounts", "create", "Acme", "--id", str(self.account))
        await self.platform.run_command("customer_provisioner", *create)
        return await self.scenario.customer(self.account)

    async def subscribe(self) -> None:
        """Have the account pay for its user, and buy three seats; wait until the ledger knows."""
        began = self.scenario.began.isoformat()
        assign = ("assign", str(self.user), str(self.account), "--from", began)
        await self.platform.run_command("customer_provisioner", *assign)
        customer = await self.scenario.customer(self.account)
        price = await self.platform.make_at_stripe("prices", **SEAT)
        items = {"items[0][price]": price, "items[0][quantity]": "3"}
        await self.platform.make_at_stripe("subscriptions", customer=customer, **items)
        await self.until_known()

    async def until_known(self) -> None:
        """Wait until the ledger knows who pays for the user, and the account's plan."""
        members, subscribed = (self.user, self.account), (self.account, "team", "active", 3)
        await eventually(lambda: self.platform.rows("usage_ingest", MEMBERS), [members].__eq__)
        await eventually(
            lambda: self.platform.rows("usage_ingest", SUBSCRIBED), [subscribed].__eq__, within=60
        )

    async def run(self, server: str, *, model: str | None = None) -> None:
        """Publish a run of the user, of now; one with a model read a thousand tokens."""
        details: dict[str, Any] = {} if model is None else {"model": model, "input_tokens": 1000}
        kind = ToolExecuted if model is None else ToolExecutedV2
        run = tool_run(self.user, time=datetime.now(UTC), kind=kind, server_id=server, **details)
        await self.platform.vhost.publish(run)
        self.scenario.runs.append(run)

    async def until_charged(self, **amounts: int) -> None:
        """Wait until Stripe has counted so much on each meter, and no usage waits."""

        async def counted() -> Amounts:
            async with self.platform.stripe() as stripe:
                return {row["event_name"]: row["value"] for row in await stripe.sums()}

        await eventually(counted, amounts.__eq__, within=90)
        await self.scenario.until_settled()
        async with self.platform.stripe() as stripe:
            attempts = await stripe.attempts()
        assert max(each["accepted"] for each in attempts.values()) == 1

    async def notices_so_far(self) -> set[str]:
        """Wait for a notice of the account; return the ids of all of them."""

        async def taken() -> set[str]:
            message = await self.notices.get(fail=False, no_ack=True)
            return set() if message is None else {str(message.message_id)}

        found = await eventually(taken, bool, within=90)
        while more := await taken():
            found |= more
        return found


def _start(platform: Platform, file: Path) -> None:
    file.write_text(PLANS)
    platform.settings |= {"PLANS_FILE": str(file), "STRIPE_WEBHOOK_SECRET": WEBHOOK_SECRET}
    platform.start()


@asynccontextmanager
async def organisation(
    scenario: RestoreScenario, file: Path, *, lost: str
) -> AsyncIterator[Organisation]:
    """Start the platform with a file of plans, back up ``lost``, and make an organisation."""
    platform = scenario.platform
    _start(platform, file)
    for meter in ("premium", "micros", "tools"):
        names = {"display_name": meter, "event_name": meter}
        await platform.make_at_stripe("billing/meters", **names, **METER)
    scenario.back_up(lost)
    async with (
        webhooks_to(platform.services["customer-provisioner"].url, platform.emulator_url),
        await aio_pika.connect(platform.vhost.admin_url) as connection,
    ):
        channel = await connection.channel()
        notices = await channel.declare_queue(QUEUE, durable=True)
        await notices.bind(NOTICES, "usage.threshold_reached.*")
        team = Organisation(scenario, notices, uuid4(), uuid4())
        await team.create()
        yield team
