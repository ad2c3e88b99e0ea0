"""The operators' commands about accounts: who there is, and who pays for whom."""

import argparse
from typing import Final
from uuid import uuid4

from pydantic import ValidationError

from customer_provisioner.explanation import describe_subscription
from customer_provisioner.opening import open_database
from customer_provisioner.profile import SOURCE
from customer_provisioner.storage.assignments import AssignmentStore
from customer_provisioner.storage.reader import BEFORE_FIRST_USER, ProfileReader
from customer_provisioner.storage.statements import KeepResult
from customer_provisioner.storage.subscriptions import SubscriptionStore
from customer_provisioner.storage.writer import ProfileWriter
from nexus_contracts import UserCreatedV2
from nexus_contracts.wording import broken_rules
from nexus_database import Database
from nexus_database.settings import DatabaseSettings
from nexus_messaging.clock import utc_now
from nexus_service.command import FAILED, SUCCESS
from nexus_service.console import rfc_3339, show_error, show_line

PAGE: Final = 100

MADE_BY: Final = f"{SOURCE}/assign"


async def manage_accounts(settings: DatabaseSettings, parsed: argparse.Namespace) -> int:
    """Create, list or show accounts of organisations."""
    actions = {"create": _create, "list": _list, "show": _show}
    async with open_database(settings) as database:
        return await actions[parsed.action](database, parsed)


async def assign_user(settings: DatabaseSettings, parsed: argparse.Namespace) -> int:
    """Have an account pay for a user, from a time on or from now on."""
    user_id, account_id = parsed.user_id, parsed.account_id
    async with open_database(settings) as database:
        held, made = await AssignmentStore(database).assign(
            user_id, account_id, parsed.since, now=utc_now(), made_by=MADE_BY
        )
    since = "always" if held is None else f"from {rfc_3339(held.since)} on"
    announced = "; the running service announces it" if made else ", as was said before"
    show_line(f"{account_id} pays for {user_id} {since}{announced}")
    return SUCCESS


async def _create(database: Database, parsed: argparse.Namespace) -> int:
    try:
        account = UserCreatedV2(
            user_id=parsed.id or uuid4(),
            name=parsed.name,
            email=parsed.email,
            stripe_customer_id=parsed.customer,
        )
    except ValidationError as error:
        for broken in broken_rules(error):
            show_error(SOURCE, f"{broken.field} {broken.rule}")
        return FAILED
    kept = await ProfileWriter(database).keep(account, utc_now(), organisation=True)
    if kept is KeepResult.OTHER_KIND:
        show_error(SOURCE, "a user has this id: an organisation needs one of its own")
        return FAILED
    begun = "its customer is created or linked by the running service"
    show_line(f"account {account.user_id}: {begun if kept is KeepResult.NEW else 'known'}")
    return SUCCESS


async def _list(database: Database, _parsed: argparse.Namespace) -> int:
    after = BEFORE_FIRST_USER
    while page := await ProfileReader(database).organisations(after, PAGE):
        for each in page:
            show_line(f"{each.user_id} {each.state} {each.stripe_customer_id or '-'} {each.name}")
        after = page[-1].user_id
    return SUCCESS


async def _show(database: Database, parsed: argparse.Namespace) -> int:
    account_id = parsed.account_id
    profile = await ProfileReader(database).find(account_id)
    if profile is None:
        show_error(SOURCE, "no such account")
        return FAILED
    members = await AssignmentStore(database).members(account_id, utc_now())
    subscriptions = await SubscriptionStore(database).of_account(account_id)
    kind = "organisation" if profile.organisation else "user"
    show_line(
        f"{kind} {account_id}: {profile.state}, {profile.stripe_customer_id or 'no customer'}"
    )
    for subscription in subscriptions:
        show_line(describe_subscription(subscription))
    show_line(f"assigned users: {len(members)}")
    for user_id in members:
        show_line(f"  {user_id}")
    return SUCCESS
