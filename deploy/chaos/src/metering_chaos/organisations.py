"""Organisations that pay for users: founded, subscribed to their plans, and known to the ledger."""

import asyncio
from functools import partial
from typing import Final

from local_stack.example_platform import Platform
from local_stack.local_stripe import PRO, LocalStripe, Prices, enterprise
from metering_chaos.environment import Environment, in_thread
from metering_chaos.evidence import Organisation
from metering_chaos.plan import INGEST, PROVISIONER

PRICES: Final[dict[str, Prices]] = {"enterprise": enterprise(seats=3), "pro": PRO}

MEMBERS: Final = """
SELECT count(*) FROM account_assignments JOIN account_plans USING (account_id)
 WHERE account_id = $1 AND plan_type = $2
"""
KNOWN_SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.2


async def found_organisations(
    environment: Environment, organisations: tuple[Organisation, ...]
) -> None:
    """Found organisations, and return once the ledger knows their members and plans.

    Raises:
        LocalStackError: one got no customer.
        TimeoutError: the ledger does not know one in time.
    """
    async with asyncio.timeout(KNOWN_SECONDS), environment.database(INGEST) as ledger:
        for each in organisations:
            await in_thread(partial(_found, environment, each))
            known = (each.account, each.plan)
            while (await ledger.fetchval(MEMBERS, *known)) < len(each.members):  # noqa: ASYNC110 - no notice
                await asyncio.sleep(POLL_SECONDS)
    environment.organisations = organisations


def _found(environment: Environment, organisation: Organisation) -> None:
    stack = environment.stack
    platform = Platform(
        provisioner=stack.http_url(PROVISIONER),
        usage_api="",  # it does not run here
        key=stack.api_key,
        accounts_key=stack.accounts_key,
    )
    platform.create_organisation(organisation.account, f"Organisation {organisation.plan}")
    customer = platform.customer_of(organisation.account)
    for member in organisation.members:
        platform.assign(member, organisation.account)
    stripe = LocalStripe(stack.emulator.url, stack.stripe_key)
    stripe.subscribe(customer, PRICES[organisation.plan])
