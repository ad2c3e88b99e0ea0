"""Each row of the table of responses, end to end: Stripe's answer, and all that follows."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from secrets import token_hex
from typing import Any

import pytest
from structlog.testing import capture_logs

from integration.stripe_reporter.bench import KEY, METER, Bench
from integration.stripe_reporter.recipes import RECIPES, Recipe, Scene
from local_stack.servers import Broker
from local_stack.urls import Address
from metering_chaos.proxies import open_proxies
from nexus_messaging.retry import BUDGET
from nexus_messaging.topology import (
    TIERS,
    USAGE_OUTCOMES_QUEUE,
    USAGE_RECORDED_QUEUE,
    dead_letter_queue,
)
from nexus_stripe.answer_classes import Effect
from stripe_emulator.running import RunningEmulator, running_emulator
from stripe_reporter.circuit import FAILURE_THRESHOLD, Cause
from stripe_reporter.handlers import SHORT_PAUSES
from stripe_reporter.stripe.responses import TABLE, Next, Response
from support.vhost import Vhost
from support.waiting import eventually

ROWS = {row.name: row for row in TABLE}
LETTERS = dead_letter_queue(USAGE_RECORDED_QUEUE)
TIER_NAMES = tuple(tier.name for tier in TIERS)
ENDLESS = 100.0
HASTY = 0.0001
"""What the tiers' waits are multiplied by: what waits in an endless one is still there when it is
checked, and a hasty budget is spent within a second."""

STATES = {
    Effect.APPLIED: "accepted",
    Effect.NOT_APPLIED: "refused",
    Effect.UNKNOWN: "unknown",
}
PLACES = {
    Next.REPORT: None,
    Next.REJECT: LETTERS,
    Next.RETRY_HERE: "retry.1",
    Next.WAIT: "retry.1",
    Next.WAIT_LONGEST: "retry.4",
    Next.SPEND_BUDGET: "retry.1",
}
OUTCOMES = {Next.REPORT: "usage.reported.v1", Next.REJECT: "usage.rejected.v1"}

UNANSWERED = [r for r in RECIPES if ROWS[r.row].opens is Cause.OUTAGE and not r.counted]
MISTAKEN = [r for r in RECIPES if ROWS[r.row].next is Next.SPEND_BUDGET]


@pytest.fixture
async def scene(
    broker: Broker, password: str, clone: Callable[[str], Awaitable[str]]
) -> AsyncIterator[Scene]:
    """Return a report on a bench whose tiers hold what they get."""
    async with _scene(broker, password, await clone("stripe_reporter"), ENDLESS) as made:
        yield made


@pytest.fixture
async def hasty_scene(
    broker: Broker, password: str, clone: Callable[[str], Awaitable[str]]
) -> AsyncIterator[Scene]:
    """Return a report on a bench where even the longest tier is short."""
    async with _scene(broker, password, await clone("stripe_reporter"), HASTY) as made:
        yield made


@asynccontextmanager
async def _scene(
    broker: Broker, password: str, database_url: str, tier_scale: float
) -> AsyncIterator[Scene]:
    vhost = Vhost(broker, f"metering-{token_hex(4)}", password)
    await vhost.create(tier_scale=tier_scale)
    async with running_emulator([KEY], [METER]) as emulator, open_proxies(["stripe"]) as proxies:
        proxy = proxies["stripe"]
        proxy.upstream = Address.of(emulator.url)
        reached = RunningEmulator(proxy.address.http_url, emulator.account)
        bench = Bench(vhost, database_url, reached)
        yield Scene(bench, proxy, bench.report(bench.customer(), value=3))
    await vhost.delete()


def test_every_row_has_a_recipe() -> None:
    """A new row needs a recipe; where its effect is unknown, one for either case."""
    tried = {(recipe.row, recipe.counted) for recipe in RECIPES}

    for row in TABLE:
        unknown = row.effect is Effect.UNKNOWN
        counted = {False, True} if unknown else {row.effect is Effect.APPLIED}
        assert {each for name, each in tried if name == row.name} == counted, row.name
    assert {name for name, _ in tried} == ROWS.keys()


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
async def test_an_answer_is_followed_by_what_its_row_says(scene: Scene, recipe: Recipe) -> None:
    """Count, journal, outcome, the message's place and the circuit; once mended, it counts once."""
    bench, row = scene.bench, ROWS[recipe.row]
    customer = scene.event.data.stripe_customer_id
    async with recipe.cause(scene):
        with capture_logs() as logs:
            await _deliver(scene, recipe)
        assert bench.counted(customer) == (3 if recipe.counted else 0)
        assert await bench.calls() == _calls(row)
        assert _openings(logs) == ([row.opens] if recipe.opens else [])
        _assert_entry(await bench.row(scene.event), row)
        await _assert_places(bench, recipe)
    if row.next not in OUTCOMES:
        await _assert_counted_in_the_end(scene, recipe)


@pytest.mark.parametrize("recipe", UNANSWERED, ids=str)
async def test_five_unanswered_reports_open_the_circuit(scene: Scene, recipe: Recipe) -> None:
    """If no report gets an answer it is an outage; all wait, none is dead-lettered."""
    bench = scene.bench
    others = [bench.report(bench.customer()) for _ in range(FAILURE_THRESHOLD - 1)]
    async with recipe.cause(scene):
        with capture_logs() as logs:
            async with bench.reporting():
                await bench.send(scene.event, *others)
                await eventually(lambda: bench.vhost.depth("retry.1"), lambda n: n == 5)

    assert _openings(logs) == [Cause.OUTAGE]
    assert await bench.vhost.depth(LETTERS) == 0


@pytest.mark.parametrize("recipe", MISTAKEN, ids=str)
async def test_what_only_a_mistake_explains_spends_the_budget(
    hasty_scene: Scene, recipe: Recipe
) -> None:
    """After five deliveries it is dead-lettered; mended and moved back, it counts once."""
    bench, event = hasty_scene.bench, hasty_scene.event
    async with bench.reporting():
        async with recipe.cause(hasty_scene):
            await bench.send(event)
            (letter,) = await bench.dead_letters(1)
            calls = await bench.calls()
            assert not await bench.vhost.depth(USAGE_OUTCOMES_QUEUE)
        await bench.revive()
        (outcome,) = await bench.outcomes(1)

    assert letter.headers["nexus-reason"] == "attempts_spent"
    assert calls == BUDGET
    assert outcome.data.TYPE == "usage.reported.v1"
    assert bench.counted(event.data.stripe_customer_id) == 3


async def _deliver(scene: Scene, recipe: Recipe) -> None:
    """Have the report delivered once, and wait until it is where its row sends it."""
    bench, place = scene.bench, _place(recipe)
    async with bench.reporting(**recipe.settings):
        await bench.send(scene.event)
        await eventually(lambda: bench.vhost.depth(place or USAGE_OUTCOMES_QUEUE), bool)


def _place(recipe: Recipe) -> str | None:
    return "retry.1" if recipe.opens else PLACES[ROWS[recipe.row].next]


def _calls(row: Response) -> int:
    if row.name == "never_sent":
        return 0
    return 1 + len(SHORT_PAUSES) if row.next is Next.RETRY_HERE else 1


def _openings(logs: list[Any]) -> list[str]:
    return [each["cause"] for each in logs if each["event"] == "circuit_opened"]


def _assert_entry(entry: dict[str, Any], row: Response) -> None:
    assert entry["answer"] == row.name
    assert entry["state"] == STATES[row.effect]
    assert entry["key_n"] == (1 if row.same_key else 2)
    assert entry["reason"] == (row.reason.value if row.reason else None)
    assert entry["first_unknown_at"] == (
        entry["started_at"] if row.effect is Effect.UNKNOWN else None
    )


async def _assert_places(bench: Bench, recipe: Recipe) -> None:
    """The message is in one place only, and its budget is spent only if its row says so."""
    row, place = ROWS[recipe.row], _place(recipe)
    queues = (USAGE_RECORDED_QUEUE, LETTERS, *TIER_NAMES)
    depths = {queue: await bench.vhost.depth(queue) for queue in queues}
    assert {queue for queue, depth in depths.items() if depth} == ({place} if place else set())
    if row.next in OUTCOMES:
        (outcome,) = await bench.outcomes(1)
        assert OUTCOMES[row.next] == outcome.data.TYPE
        assert outcome.data.ever_unknown is False
    else:
        assert await bench.vhost.depth(USAGE_OUTCOMES_QUEUE) == 0
    if place is None:
        return
    (message,) = await bench.vhost.peek(place)
    if place == LETTERS:
        assert row.reason is not None
        assert message.headers["nexus-reason"] == row.reason.value
        return
    spent = 1 if row.next is Next.SPEND_BUDGET else 0
    waited = 0 if recipe.opens or spent else 1
    assert message.headers["nexus-attempt"] == 1 + spent
    assert message.headers["nexus-waits"] == waited


async def _assert_counted_in_the_end(scene: Scene, recipe: Recipe) -> None:
    bench, place = scene.bench, _place(recipe)
    assert place is not None
    async with bench.second().reporting(**recipe.settings):
        await bench.vhost.move(place, USAGE_RECORDED_QUEUE)
        (outcome,) = await bench.outcomes(1)

    assert outcome.data.TYPE == "usage.reported.v1"
    assert outcome.data.ever_unknown is (ROWS[recipe.row].effect is Effect.UNKNOWN)
    assert bench.counted(scene.event.data.stripe_customer_id) == 3
    assert (await bench.row(scene.event))["state"] == "accepted"
