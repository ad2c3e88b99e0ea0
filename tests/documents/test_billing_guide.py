"""The page for those who come from a billing guide: its commands do what it says, in its order."""

import asyncio
import json
import os
import re
import shlex
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

import pytest

from local_stack.catalogue import METER, SERVICES, base_environment
from nexus_contracts import Event, UserCreatedV2
from support.events import past_run
from support.pages import DOCS
from support.platform import Platform
from support.stripe_webhooks import WEBHOOK_SECRET
from support.waiting import eventually

PAGE: Final = DOCS / "from-a-billing-guide.md"
PLANS: Final = DOCS.parent / "deploy" / "plans.yaml"
BLOCK: Final = re.compile(r"```(sh|sql)\n(.*?)```", re.DOTALL)
ADA: Final = UUID("018f3a52-7c1e-7d3a-9f00-5a2b6c7d8e9f")
BEN, CEM, ACME = UUID(int=2), UUID(int=3), UUID(int=4)

REPORTED: Final = "SELECT count(*)::int FROM usage_reports WHERE state = 'reported'"
ASSIGNED: Final = "SELECT account_id FROM account_assignments"
PAID: Final = "SELECT user_id, value::int FROM usage_reports ORDER BY created_at"

PRO: Final = {
    "currency": "usd",
    "unit_amount": "2000",
    "recurring[interval]": "month",
    "lookup_key": "nexus_pro_monthly",
    "product_data[name]": "Nexus Pro",
}


@dataclass
class Reader:
    """Somebody who reads the page and does what it says, block by block.

    The commands are those of the services, each with the settings of its service.
    """

    platform: Platform
    directory: Path
    settings: dict[str, str] = field(default_factory=dict)
    blocks: list[tuple[str, str]] = field(
        default_factory=lambda: BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    )

    async def run(self, begin: str) -> str:
        """Run the next block, which begins with ``begin``; return its output if it succeeds."""
        language, block = self.blocks.pop(0)
        assert (language, block.startswith(begin)) == ("sh", True), block
        self._write_commands()
        environment = base_environment() | self.settings
        process = await asyncio.create_subprocess_exec(
            *("bash", "-euo", "pipefail", "-c", block),
            cwd=self.directory,
            env={**environment, "PATH": f"{self.directory}{os.pathsep}{os.environ['PATH']}"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()
        return output.decode()

    def query(self, begin: str) -> Callable[[], Awaitable[list[tuple[object, ...]]]]:
        """Return what runs the next block as the service whose name is in its first line."""
        language, block = self.blocks.pop(0)
        service, _, statement = block.removeprefix("-- ").partition("\n")
        assert (language, statement.startswith(begin)) == ("sql", True), block
        return lambda: self.platform.rows(service.replace("-", "_"), statement)

    def _write_commands(self) -> None:
        for plan in SERVICES:
            settings = self.platform.settings_of(plan.module)
            given = " ".join(f"{name}={shlex.quote(value)}" for name, value in settings.items())
            command = self.directory / plan.name
            command.write_text(
                f'#!/bin/sh\nexec env {given} {sys.executable} -m {plan.module} "$@"\n'
            )
            command.chmod(0o700)


async def make_key(reader: Reader) -> tuple[str, str]:
    """Make a key of the HTTP API; return it, and its entry in the settings."""
    made = await reader.run("customer-provisioner make-api-key platform")
    [key, entry] = re.findall(r"^(?:key|entry)[^:]*: +(\S+)$", made, re.MULTILINE)
    return key, entry


async def adas_customer(platform: Platform) -> str:
    """Make a customer with a subscription, as the old way had left it."""
    [customer] = await platform.customers(1)
    price = await platform.make_at_stripe("prices", **PRO)
    subscription = {"customer": customer, "items[0][price]": price}
    await platform.make_at_stripe("subscriptions", **subscription)
    return customer


async def billed_run(platform: Platform, user: UUID, number: int) -> UUID:
    """Publish a run, and return its id once Stripe has counted it as one of ``number``."""
    run = past_run(user)
    await platform.vhost.publish(run)
    await eventually(lambda: platform.rows("usage_ingest", REPORTED), [(number,)].__eq__, within=60)
    return run.id


@pytest.mark.long
async def test_commands_of_the_page_do_what_it_says(platform: Platform, tmp_path: Path) -> None:
    """From the first meter to a customer made by hand, on the real services."""
    reader = Reader(platform, tmp_path / "reader")
    reader.directory.mkdir()
    platform.settings |= {"PLANS_FILE": str(PLANS), "STRIPE_WEBHOOK_SECRET": WEBHOOK_SECRET}
    platform.start_stripe()

    assert METER in await reader.run("stripe-reporter meters ensure")
    assert "FAIL" not in await reader.run("customer-provisioner check")
    key, platform.settings["API_KEYS"] = await make_key(reader)
    customer = await adas_customer(platform)
    platform.start()

    users = [(ADA, "ada", customer), (BEN, "ben", "")]
    lines = [f"{user},{name}@example.com,{name},{linked}\n" for user, name, linked in users]
    (reader.directory / "users.csv").write_text(
        f"user_id,email,name,stripe_customer_id\n{''.join(lines)}"
    )
    await reader.run("customer-provisioner backfill users.csv")
    subscriptions = await eventually(reader.query("SELECT user_id, plan_type"), bool, within=90)
    assert subscriptions[0][:3] == (ADA, "pro", "active")

    event_id = await billed_run(platform, ADA, 1)
    reader.settings |= {"USER_ID": str(BEN), "ACCOUNT_ID": str(ACME), "EVENT_ID": str(event_id)}
    assert "accepted by Stripe" in await reader.run("usage-ingest explain")
    reader.settings["STRIPE_ADMIN_KEY"] = platform.stripe_key
    assert "changes made" in await reader.run("customer-provisioner plans ensure")
    del reader.settings["STRIPE_ADMIN_KEY"]
    assigned = await reader.run("customer-provisioner accounts create")
    assert f"{ACME} pays for {BEN} from " in assigned
    await eventually(lambda: platform.rows("usage_ingest", ASSIGNED), [(ACME,)].__eq__)
    await billed_run(platform, BEN, 2)

    recent = await reader.query("SELECT user_id, tool_name")()
    assert [row[0] for row in recent] == [BEN, ADA]
    assert all(row[-1] for row in recent)
    assert await reader.query("SELECT user_id, email")() == [(ADA, "ada@example.com")]
    reader.settings["USER_ID"] = str(ADA)
    assert f"{ADA} provisioned {customer}" in await reader.run("customer-provisioner find")
    assert "no difference is open" in await reader.run("usage-ingest reconcile")
    assert f"user {ADA}: " in await reader.run("usage-ingest statement")
    assert "nobody's usage waits" in await reader.run("usage-ingest waiting")
    link = UserCreatedV2(user_id=CEM, stripe_customer_id="cus_unknown")
    created = Event.of(link, source="test/app", id=uuid4(), time=datetime.now(UTC))
    await platform.vhost.publish(created)
    without = reader.query("SELECT user_id, created_at")
    refused = await eventually(without, lambda rows: bool(rows and rows[0][2]), within=60)
    assert [(user, why) for user, _, why in refused] == [(CEM, "Stripe has no such customer")]
    assert "nothing: the user has a customer" in await reader.run("customer-provisioner explain")
    url = platform.services["customer-provisioner"].url
    reader.settings |= {"CUSTOMERS_URL": url, "API_KEY": key}
    assert json.loads(await reader.run("curl"))["stripe_customer_id"] == customer
    assert reader.blocks == []
    assert await platform.rows("usage_ingest", PAID) == [(ADA, 1), (BEN, 1)]  # it ended before
