"""What the demo tells after its counts: plans, an organisation, a limit, an upgrade, tokens.

Each chapter says what was found in the running stack, and whether that is as it should be.
"""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID, uuid4

from local_stack.catalogue import METER
from local_stack.example_platform import Platform, allowed, poll
from local_stack.local_stripe import PRO, LocalStripe, enterprise
from local_stack.loopback import fetch
from local_stack.publishing import publish, tool_executed, user_created
from local_stack.sql import run_sql
from metering_demo.endpoints import Endpoints
from metering_demo.notices import Notices

RUNS: Final = 1000
"""As many as the plan Free of ``deploy/plans.yaml`` has in a period."""

SHARES: Final = [80, 100]
"""The shares of that limit that are announced, in percent."""

SEATS: Final = 5
MEMBER_RUNS: Final = 10
TOOLS: Final = (("files", "convert"), ("sql-reports", "query"))
WEATHER: Final = ("weather", "forecast")
BROWSER: Final = ("browser", "open_page")

TOKENS: Final[Mapping[str, str | int]] = {
    "model": "claude-sonnet-4-5",
    "input_tokens": 10_000,
    "output_tokens": 2_000,
}
COST: Final = 10_000 * 3 + 2_000 * 15
"""Micro-USD: the model costs $3 and $15 a million tokens, as ``deploy/plans.yaml`` has it."""

MARKUP_PERCENT: Final = 20
"""Of the plan Pro."""

REJECTED: Final = "meter_event_invalid_value"
"""What Stripe finds wrong with a run after it has accepted it."""


@dataclass(frozen=True, slots=True)
class Chapter:
    """A part of the story: what was found, and whether it is as it should be."""

    name: str
    found: str
    holds: bool

    def line(self) -> str:
        """Write it for a person."""
        return f"{self.name:<14}{self.found}{'' if self.holds else '  <- differs'}"


@dataclass(frozen=True, slots=True)
class Cast:
    """Who is in it: three users on their own, and an organisation with three."""

    ada: UUID = field(default_factory=uuid4)
    grace: UUID = field(default_factory=uuid4)
    linus: UUID = field(default_factory=uuid4)
    acme: UUID = field(default_factory=uuid4)
    members: tuple[UUID, ...] = field(default_factory=lambda: (uuid4(), uuid4(), uuid4()))


class Story:
    """The story on a running stack, once."""

    def __init__(self, endpoints: Endpoints, patience: float) -> None:
        """Prepare; each wait for a figure ends after ``patience`` seconds."""
        self._at = endpoints
        self._patience = patience
        self._platform = Platform(
            endpoints.provisioner, endpoints.usage_api, endpoints.api_key, endpoints.accounts_key
        )
        self._stripe = LocalStripe(endpoints.emulator, endpoints.stripe_key)
        self._cast = Cast()

    def tell(self) -> Iterator[Chapter]:
        """Make it happen, and yield its chapters.

        Raises:
            LocalStackError: something did not happen at all.
            OSError: an API refused something.
        """
        cast, notices = self._cast, Notices.subscribe(self._at)
        self._stripe.end_faults()
        customers = self._enter()
        yield self._plans(customers)
        self._run_tools()
        yield self._limit(notices)
        yield self._upgrade(customers[cast.ada])
        yield self._organisation(customers)
        yield self._tokens(customers[cast.grace])
        yield self._page(customers[cast.ada])
        yield self._rejection(customers[cast.linus])

    def _enter(self) -> Mapping[UUID, str]:
        """Create users and an organisation that pays for some; return the customers."""
        cast, now = self._cast, datetime.now(UTC)
        users = (cast.ada, cast.grace, cast.linus, *cast.members)
        publish(self._at.publisher_amqp, [user_created(each, now) for each in users])
        self._platform.create_organisation(cast.acme, "Acme")
        for member in cast.members:
            self._platform.assign(member, cast.acme)
        return {each: self._platform.customer_of(each) for each in (*users, cast.acme)}

    def _plans(self, customers: Mapping[UUID, str]) -> Chapter:
        """Have Grace and Acme subscribe at Stripe, which says so by webhook."""
        cast, platform, began = self._cast, self._platform, time.monotonic()
        self._stripe.subscribe(customers[cast.grace], PRO)
        self._stripe.subscribe(customers[cast.acme], enterprise(SEATS))
        plans = [
            platform.entitlements(cast.ada)["plan_name"],
            platform.await_plan(cast.grace, "pro")["plan_name"],
            platform.await_plan(cast.members[0], "enterprise")["plan_name"],
        ]
        ada, grace, acme = plans
        found = (
            f"Ada is on {ada}; Grace subscribed to {grace} and Acme to {acme} at Stripe,"
            f" and {time.monotonic() - began:.1f} s later their users had these plans"
        )
        return Chapter("plans", found, plans == ["Free", "Pro", "Enterprise"])

    def _run_tools(self) -> None:
        """Run all of Ada's quota, some tools for Acme, and a model for Grace."""
        cast, now = self._cast, datetime.now(UTC)
        past = now - timedelta(minutes=1)
        # Tokens are charged with the plan's markup: that of the time when the run ended.
        runs = [tool_executed(cast.grace, now, ("writer", "draft"), **TOKENS)]
        runs += [tool_executed(cast.ada, past, WEATHER) for _ in range(RUNS)]
        runs += [
            tool_executed(member, now, TOOLS[number % len(TOOLS)])
            for member in cast.members
            for number in range(MEMBER_RUNS)
        ]
        publish(self._at.publisher_amqp, runs)

    def _limit(self, notices: Notices) -> Chapter:
        """Wait until nothing is left to Ada."""
        ada, platform = self._cast.ada, self._platform

        def runs() -> Mapping[str, Any]:
            limits = platform.entitlements(ada)["limits"]
            return next(each for each in limits if each["name"] == "runs")

        limit = poll(runs, lambda found: found["remaining"] == 0, self._patience)
        shares = notices.shares(ada, len(SHARES), self._patience)
        answer = allowed(platform.entitlements(ada), *WEATHER)
        found = (
            f"Ada has used {limit['used']} of {limit['limit']} runs: notices of"
            f" {' and '.join(f'{share} %' for share in shares)} have come,"
            f" and she may run another: {_yes(answer)}"
        )
        return Chapter(
            "a limit", found, limit["used"] == RUNS and shares == SHARES and answer is False
        )

    def _upgrade(self, customer: str) -> Chapter:
        """Have Ada subscribe, too, and ask again."""
        ada, platform = self._cast.ada, self._platform
        before, began = allowed(platform.entitlements(ada), *BROWSER), time.monotonic()
        self._stripe.subscribe(customer, PRO)
        after = platform.await_plan(ada, "pro")
        seconds = time.monotonic() - began
        answers = [allowed(after, *WEATHER), before, allowed(after, *BROWSER)]
        found = (
            f"Ada subscribes to {after['plan_name']} at Stripe, and {seconds:.1f} s later she may"
            f" run another: {_yes(answers[0])}; a premium server: {_yes(answers[1])} before,"
            f" {_yes(answers[2])} now"
        )
        return Chapter("an upgrade", found, answers == [True, False, True])

    def _organisation(self, customers: Mapping[UUID, str]) -> Chapter:
        """Look for the members' runs at Stripe: on one customer, and nowhere else."""
        cast = self._cast
        runs = len(cast.members) * MEMBER_RUNS
        wanted = {METER: runs, "unique_tools": len(TOOLS)}
        of_acme = self._sums(customers[cast.acme], wanted)
        seats = self._platform.entitlements(cast.members[0])["seats"]
        of_members = sum(sum(self._counted(customers[member]).values()) for member in cast.members)
        found = (
            f"Acme pays for {len(cast.members)} users on {seats} seats: on its one customer Stripe"
            f" counts {of_acme.get(METER, 0)} runs and {of_acme.get('unique_tools', 0)} tools in"
            f" use, on theirs {of_members}"
        )
        holds = (of_acme, seats, of_members) == (wanted, SEATS, 0)
        return Chapter("seats", found, holds)

    def _tokens(self, customer: str) -> Chapter:
        """Compare what a run's tokens cost with what Stripe counts for them."""
        billed = COST * (100 + MARKUP_PERCENT) // 100
        at_stripe = self._sums(customer, {METER: 1, "llm_cost_micros": billed})
        counted = at_stripe.get("llm_cost_micros", 0)
        # Hers is the only run of the story that has read tokens.
        read = "SELECT coalesce(sum((readings->>'@tokens')::bigint), 0) FROM usage_events"
        cost = int(run_sql(self._at.ledger, read))
        found = (
            f"a run of Grace's took {TOKENS['input_tokens']} + {TOKENS['output_tokens']} tokens of"
            f" {TOKENS['model']} for {_usd(cost)}; with her plan's {MARKUP_PERCENT} % Stripe counts"
            f" {_usd(counted)}"
        )
        return Chapter("tokens", found, (cost, counted) == (COST, billed))

    def _page(self, customer: str) -> Chapter:
        """Read what the usage page would show Ada."""
        self._sums(customer, {METER: RUNS})
        recorded, accepted = poll(self._usage, lambda found: found == (RUNS, RUNS), self._patience)
        found = (
            f"Ada's page shows {recorded} runs, {accepted} accepted by Stripe;"
            " `make up` prints the address of such a page"
        )
        return Chapter("the page", found, recorded == accepted == RUNS)

    def _rejection(self, customer: str) -> Chapter:
        """Have Stripe accept a run of Linus's, and say later that it does not count it."""
        self._stripe.reject_later(customer, REJECTED)
        publish(
            self._at.publisher_amqp, [tool_executed(self._cast.linus, datetime.now(UTC), WEATHER)]
        )
        # His is the only one.
        query = "SELECT state || ', ' || reason FROM usage_reports WHERE state = 'rejected_later'"
        state = poll(lambda: run_sql(self._at.ledger, query).strip(), bool, self._patience)
        counted = self._counted(customer).get(METER, 0)
        found = (
            f"Stripe accepted a run of Linus's and rejected it later: of 1 it counts {counted},"
            f" and the ledger has it as {state}"
        )
        return Chapter("a rejection", found, (state, counted) == (f"rejected_later, {REJECTED}", 0))

    def _usage(self) -> tuple[int, int]:
        today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        asked = {
            "user": str(self._cast.ada),
            "from": (today - timedelta(days=1)).isoformat(),
            "to": (today + timedelta(days=1)).isoformat(),
            "by": "day",
        }
        key = {"Authorization": f"Bearer {self._at.api_key}"}
        answer = json.loads(fetch(f"{self._at.usage_api}/v1/usage?{urlencode(asked)}", headers=key))
        accepted = (each["accepted"] for each in answer["amounts"] if each["meter"] == METER)
        return sum(each["runs"] for each in answer["recorded"]), sum(accepted)

    def _sums(self, customer: str, wanted: Mapping[str, int]) -> Mapping[str, int]:
        return poll(lambda: self._counted(customer), lambda found: found == wanted, self._patience)

    def _counted(self, customer: str) -> Mapping[str, int]:
        return self._stripe.sums().get(customer, {})


def _yes(answer: bool) -> str:  # noqa: FBT001 - a word for an answer
    return "yes" if answer else "no"


def _usd(micros: int) -> str:
    return f"${micros / 1_000_000:.6f}"
