"""Users of an example platform with a month of usage, so that the usage page has something to show.

Ada is on her own, on the least plan and near its limit. Grace has subscribed to Pro. Linus and
Margaret work for Acme, which has five seats of Enterprise; Linus administers it.
"""

import random
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from local_stack.example_platform import Platform
from local_stack.local_stripe import PRO, LocalStripe, enterprise
from local_stack.publishing import Event, publish, tool_executed, user_created
from local_stack.stack import Stack
from local_stack.usage_page import PageUser

DAYS: Final = 30
SUBSCRIBED: Final = timedelta(days=20)
SEATS: Final = 5

_HOURS: Final = (8, 11, 15, 20)
"""When runs are: those of one second become one report, so that Stripe has few to take."""

_MODEL: Final = "claude-sonnet-4-5"


@dataclass(frozen=True, slots=True)
class _Habit:
    """How often somebody runs a tool in a day; with a model, also which tokens a run takes."""

    tool: tuple[str, str]
    daily: int
    tokens: int = 0


_HABITS: Final = {
    "Ada": (_Habit(("weather", "forecast"), 17), _Habit(("search", "web"), 11)),
    "Grace": (
        _Habit(("search", "web"), 30),
        _Habit(("browser", "open_page"), 12),
        _Habit(("writer", "draft"), 5, tokens=4000),
    ),
    "Linus": (_Habit(("files", "convert"), 40), _Habit(("sql-reports", "query"), 20)),
    "Margaret": (_Habit(("search", "web"), 25), _Habit(("writer", "review"), 4, tokens=9000)),
}


def add_demo_users(stack: Stack) -> Sequence[PageUser]:
    """Publish the users and their runs, and return who may be signed in on the page.

    Raises:
        NotPublishedError: If the broker did not confirm an event.
        NotInTimeError: If a customer or a plan was not there within a minute.
        OSError: If an API refused something.
    """
    platform = Platform(
        stack.http_url("customer-provisioner"),
        stack.usage_api_url,
        stack.api_key,
        stack.accounts_key,
    )
    users, acme, now = {name: uuid.uuid4() for name in _HABITS}, uuid.uuid4(), datetime.now(UTC)
    publish(
        stack.amqp_url("publisher"),
        [user_created(user, now, name) for name, user in users.items()],
    )
    platform.create_organisation(acme, "Acme")
    for name in ("Linus", "Margaret"):
        platform.assign(users[name], acme, now - timedelta(days=DAYS + 1))
    _subscribe(stack, platform, users["Grace"], acme)
    platform.await_plan(users["Grace"], "pro")
    platform.await_plan(users["Linus"], "enterprise")
    runs = [run for name, user in users.items() for run in _runs(name, user, now)]
    # What ran together is published together: so it is claimed together, as one report.
    runs.sort(key=lambda run: run[0])
    publish(stack.amqp_url("publisher"), [event for _, event in runs])
    return (
        PageUser(users["Ada"], "Ada (Free)"),
        PageUser(users["Grace"], "Grace (Pro)"),
        PageUser(users["Linus"], "Linus (administers Acme, Enterprise)", acme),
        PageUser(users["Margaret"], "Margaret (works for Acme)"),
    )


def _subscribe(stack: Stack, platform: Platform, grace: UUID, acme: UUID) -> None:
    """Subscribe as of some weeks ago, so that there is usage in the running period."""
    stripe = LocalStripe(stack.emulator_url, stack.stripe_key)
    customers = {grace: PRO, acme: enterprise(SEATS)}
    ids = {platform.customer_of(account): prices for account, prices in customers.items()}
    stripe.set_clock(time.time() - SUBSCRIBED.total_seconds())
    try:
        for customer, prices in ids.items():
            stripe.subscribe(customer, prices)
    finally:
        stripe.set_clock(time.time())


def _runs(name: str, user: UUID, now: datetime) -> Iterator[tuple[datetime, Event]]:
    rng = random.Random(name)  # noqa: S311 - no secret
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    times = [
        midnight - timedelta(days=day) + timedelta(hours=hour)
        for day in range(DAYS)
        for hour in _HOURS
    ]
    past = [each for each in times if each < now]
    for habit in _HABITS[name]:
        for _ in range(habit.daily * len(past) // len(_HOURS)):
            at = rng.choice(past)
            yield at, _run(rng, user, habit, at)


def _run(rng: random.Random, user: UUID, habit: _Habit, at: datetime) -> Event:
    if not habit.tokens:
        return tool_executed(user, at, habit.tool)
    read, written = (rng.randrange(habit.tokens // 2, habit.tokens) for _ in range(2))
    return tool_executed(
        user,
        at,
        habit.tool,
        model=_MODEL,
        input_tokens=read,
        output_tokens=written,
        token_count=read + written,
    )
