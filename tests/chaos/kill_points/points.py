"""A kill point: how usage is brought to a step of a service, and how that step is held."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID, uuid4

from typing_extensions import override

from chaos.controlled_stack import INGEST, PROVISIONER, REPORTER, ControlledStack, created
from metering_chaos.proxies import Direction
from nexus_contracts import Event, SubscriptionChanged, ToolExecuted, UserAssigned
from support.events import past_run, second_version
from support.waiting import eventually

CLAIMING: Final = "WITH taken"

RECORDED: Final = "SELECT 1 FROM usage_events WHERE user_id = $1"
ACCOUNT: Final = "SELECT 1 FROM billing_accounts WHERE user_id = $1"
REPORT: Final = "SELECT identifier FROM usage_reports WHERE user_id = $1"
LEASED: Final = f"{REPORT} AND leased_until IS NOT NULL"
FORWARDED: Final = f"{REPORT} AND state = 'forwarded'"
REPORTED: Final = f"{REPORT} AND state = 'reported'"
FOLDED: Final = "SELECT 1 FROM folded_amounts WHERE account_id = $1"
ASSIGNED: Final = "SELECT 1 FROM account_assignments WHERE user_id = $1"
SUBSCRIBED: Final = """
SELECT 1 FROM account_subscriptions JOIN subscription_periods USING (subscription_id)
 WHERE account_id = $1
"""
PLANNED: Final = "SELECT plan_type FROM account_plans WHERE account_id = $1"
CALL_IS: Final = "SELECT 1 FROM meter_calls WHERE identifier = $1 AND state = $2"
PROFILE: Final = "SELECT 1 FROM user_profiles WHERE user_id = $1"
CALLED: Final = f"{PROFILE} AND call_started_at IS NOT NULL"
STORED: Final = f"{PROFILE} AND state = 'provisioned'"
ANNOUNCED: Final = f"{PROFILE} AND announced_generation = 1"

END_LEASES: Final = "UPDATE usage_reports SET leased_until = now() WHERE user_id = $1"
END_ATTEMPT: Final = """
UPDATE user_profiles SET claimed_until = now(), due_at = now() WHERE user_id = $1
"""
AGE_CALL: Final = """
UPDATE meter_calls SET started_at = started_at - interval '1 minute'
 WHERE identifier = $1 AND state = 'calling'
"""


@dataclass(frozen=True)
class Usage:
    """A user, a run of theirs, and the stack that bills it; ``account``: if another one pays."""

    stack: ControlledStack
    user: UUID
    run: Event[ToolExecuted]
    account: UUID | None = None

    @classmethod
    async def of_customer(cls, stack: ControlledStack) -> "Usage":
        """Return a run, not yet published, of a user who can be billed."""
        user = await stack.customer()
        return cls(stack, user, past_run(user))

    @classmethod
    async def before_its_user(cls, stack: ControlledStack) -> "Usage":
        """Return a recorded run of a user who does not exist yet."""
        user = uuid4()
        usage = cls(stack, user, past_run(user))
        await usage.record_run()
        return usage

    async def publish_run(self) -> None:
        """Publish the run."""
        await self.stack.publish(self.run)

    async def record_run(self) -> None:
        """Publish the run and wait until it is recorded."""
        await self.publish_run()
        await self.stack.until(INGEST, RECORDED, self.user)

    async def publish_second_version(self) -> None:
        """Publish the run with details."""
        await self.stack.publish(second_version(self.run, model="large", cached_tokens=9))

    async def publish_user(self) -> None:
        """Publish the user."""
        await self.stack.publish(created(self.user))

    async def assign(self) -> None:
        """Have the account pay for the user, from before the run on."""
        since = self.run.time - timedelta(hours=1)
        assigned = UserAssigned(
            user_id=self.user, account_id=self.account or self.user, since=since, revision=1
        )
        await self.stack.announce(assigned)

    async def subscribe(self) -> None:
        """Have the user subscribe to a plan."""
        begins = self.run.time - timedelta(hours=1)
        change = SubscriptionChanged(
            subscription_id=f"sub_{self.user.hex}",
            account_id=self.user,
            stripe_customer_id="cus_any",
            revision=1,
            plan_type="pro",
            status="active",
            items=[],
            period_start=begins,
            period_end=begins + timedelta(days=30),
            plan_since=begins,
            as_of=self.run.time,
        )
        await self.stack.announce(change)

    async def identifier(self) -> str:
        """Wait for the user's report and return its identifier."""
        await self.stack.until(INGEST, REPORT, self.user)
        return str((await self.stack.rows(INGEST, REPORT, self.user))[0][0])

    async def end_leases(self) -> None:
        """End the leases of the user's reports."""
        await self.stack.rows(INGEST, END_LEASES, self.user)

    async def end_attempt(self) -> None:
        """End the lease of the attempt to create the user's customer."""
        await self.stack.rows(PROVISIONER, END_ATTEMPT, self.user)

    async def age_call(self) -> None:
        """Make the report's current call older than any call lasts."""
        await self.stack.rows(REPORTER, AGE_CALL, await self.identifier())

    async def assert_billed_once(self) -> None:
        """Wait until the run is reported; it is counted once."""
        await self.stack.assert_billed_once(self.user, self.run)

    async def assert_one_customer(self) -> None:
        """Wait until the user can be billed; Stripe has one customer for it."""
        await self.stack.until(INGEST, ACCOUNT, self.user, within=45)
        assert await self.stack.customers(self.user) == 1


Step = Callable[[Usage], Awaitable[object]]


async def nothing(_usage: Usage) -> None:
    """Do nothing."""


@dataclass(frozen=True)
class KillPoint:
    """A place between two steps of a service, and what brings it there.

    ``before`` brings the usage to the step before. Then ``lock`` names a table to be locked and
    how the statement begins that has to wait, or the proxy to ``hold`` keeps what the service
    sends; ``cause`` causes the step, and ``reached`` waits until the service stands in it.
    ``after`` shortens the waits that the kill makes necessary.
    """

    name: str
    service: str
    before: Step = nothing
    lock: tuple[str, str] | None = None
    hold: str | None = None
    cause: Step = nothing
    reached: Step = nothing
    after: Step = nothing

    @override
    def __str__(self) -> str:
        return self.name

    async def kill(self, usage: Usage) -> None:
        """Bring the service to the point, kill it, and start it again."""
        stack = usage.stack
        await self.before(usage)
        async with AsyncExitStack() as locks:
            if self.lock:
                await locks.enter_async_context(stack.locked(self.service, self.lock[0]))
            if self.hold:
                stack.proxy(self.service, self.hold).hold(Direction.TO_SERVER)
            await self.cause(usage)
            await self.reached(usage)
            if self.lock:
                await stack.until_blocked(self.service, self.lock[1])
            await stack.kill(self.service)
        await self.after(usage)
        await stack.restart(self.service)


def row(service: str, query: str) -> Step:
    """Return a wait for a row that a query for the user finds."""
    return lambda usage: usage.stack.until(service, query, usage.user)


def call_is(state: str) -> Step:
    """Return a wait for the state of the report's row in the journal."""

    async def until(usage: Usage) -> None:
        await usage.stack.until(REPORTER, CALL_IS, await usage.identifier(), state)

    return until


def release(service: str, part: str, *directions: Direction) -> Step:
    """Return the release of a proxy, of one direction or of both."""

    async def released(usage: Usage) -> None:
        usage.stack.proxy(service, part).release(*directions)

    return released


def claim_with_broker_held(way: Direction) -> Step:
    """Return a claim of the run, after which the broker's proxy holds one direction."""

    async def claimed(usage: Usage) -> None:
        async with usage.stack.locked(INGEST, "usage_reports"):
            await usage.publish_run()
            await usage.stack.until_blocked(INGEST, CLAIMING)
            usage.stack.proxy(INGEST, "broker").hold(way)

    return claimed


async def forward_without_confirm(usage: Usage) -> None:
    """Have a report counted at Stripe while ingest waits for the broker's confirm of it."""
    await claim_with_broker_held(Direction.TO_CLIENT)(usage)
    await usage.stack.until_counted(usage.user)


async def count_without_answer(usage: Usage) -> None:
    """Have the run counted at Stripe while the reporter waits for the answer."""
    usage.stack.proxy(REPORTER, "stripe").hold(Direction.TO_CLIENT)
    await usage.publish_run()
    await usage.stack.until_counted(usage.user)
    await usage.stack.until(INGEST, FORWARDED, usage.user)


async def publish_outcome_without_confirm(usage: Usage) -> None:
    """Have ingest apply an outcome while the reporter waits for the broker's confirm of it."""
    await count_without_answer(usage)
    usage.stack.proxy(REPORTER, "broker").hold(Direction.TO_CLIENT)
    usage.stack.proxy(REPORTER, "stripe").release()
    await usage.stack.until(INGEST, REPORTED, usage.user)


async def create_customer_without_answer(usage: Usage) -> None:
    """Have Stripe create a customer while the provisioner waits for the answer."""
    stack = usage.stack
    stack.proxy(PROVISIONER, "stripe").hold(Direction.TO_CLIENT)
    await usage.publish_user()
    await eventually(lambda: stack.customers(usage.user), lambda n: n == 1, within=30, every=0.1)


async def announce_without_confirm(usage: Usage) -> None:
    """Have ingest open an account while the provisioner waits for the broker's confirm."""
    await create_customer_without_answer(usage)
    usage.stack.proxy(PROVISIONER, "broker").hold(Direction.TO_CLIENT)
    usage.stack.proxy(PROVISIONER, "stripe").release()
    await usage.stack.until(INGEST, ACCOUNT, usage.user)
