"""Rounds of the loop on a real database and a real broker, whatever fails in between."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import pytest
from prometheus_client import CollectorRegistry

from integration.outbox.conftest import Host, published
from nexus_contracts import CONTENT_TYPE
from nexus_database import Database
from nexus_messaging.errors import PublishError
from nexus_messaging.publisher import Publication, Publisher
from nexus_messaging.topology import TOOL_EXECUTED_QUEUE, USER_CREATED_QUEUE
from nexus_outbox import relay as relaying
from nexus_outbox.metrics import Metrics
from nexus_outbox.outcomes import Row, RowOutcome
from nexus_outbox.relay import ClaimedRows, EventPublisher, Relay
from nexus_outbox.storage import Outbox
from support.vhost import Vhost
from support.waiting import eventually

T = TypeVar("T")

STEPS = 3
"""Awaits of a round beyond this process: claim, publish, settle."""

CORRECT = """
UPDATE metering.outbox SET event = jsonb_set(event, '{data,user_id}', to_jsonb(gen_random_uuid()))
 WHERE sent_at IS NULL
"""

END_LEASES = "UPDATE metering.outbox SET due_at = now() WHERE due_at IS NOT NULL"


@pytest.fixture
async def publisher(vhost: Vhost) -> AsyncIterator[Publisher]:
    """Return a publisher with the rights of an outside service."""
    connected = await Publisher.connect(vhost.url("publisher"), name="test")
    yield connected
    await connected.close()


def relay_of(outbox: ClaimedRows, publisher: EventPublisher) -> Relay:
    """Return a relay with metrics of its own."""
    return Relay(outbox, publisher, Metrics(CollectorRegistry()))


async def test_an_event_is_published_with_all_its_properties(
    host: Host, outbox: Outbox, publisher: Publisher, vhost: Vhost
) -> None:
    """As docs/publishing.md asks for them."""
    run = host.run_tool()

    assert not await relay_of(outbox, publisher).publish_due()

    [got] = await vhost.peek(TOOL_EXECUTED_QUEUE)
    assert got.body.decode() == host.sql("SELECT event FROM metering.outbox")
    assert (got.message_id, got.type) == (str(run), "tool.executed.v1")
    assert (got.content_type, got.delivery_mode) == (CONTENT_TYPE, 2)
    assert host.sql("SELECT due_at, sent_at <= now() FROM metering.outbox") == "|t"


async def test_a_bad_event_is_set_aside_alone(
    host: Host, outbox: Outbox, publisher: Publisher, vhost: Vhost
) -> None:
    """It is seen with its reason; corrected, it is published with its id."""
    relay = relay_of(outbox, publisher)
    good = [host.run_tool() for _ in range(3)]
    bad = host.sql("SELECT metering.tool_executed(NULL, 's', 't', 'hub')", "hub")

    await relay.publish_due()

    assert await published(vhost) == sorted(map(str, good))
    problem = host.sql("SELECT problem, event_id, reason FROM metering.problems")
    assert problem == f"invalid|{bad}|data.user_id: must be a UUID"
    assert (await outbox.status()).invalid == 1

    host.sql(CORRECT)
    assert await outbox.retry_invalid() == 1
    await relay.publish_due()
    assert await published(vhost) == [bad]


async def test_a_forbidden_event_hurts_no_neighbour(
    host: Host, outbox: Outbox, publisher: Publisher, vhost: Vhost
) -> None:
    """The broker closes the channel of all; later the event waits alone, until it is permitted."""
    relay = relay_of(outbox, publisher)
    await permit(vhost, r"^tool\.executed\..*$")
    runs = [host.run_tool() for _ in range(5)]
    host.sign_up()
    runs += [host.run_tool() for _ in range(5)]

    await until_published(relay, outbox, left=1)

    assert set(await published(vhost)) == set(map(str, runs))
    status = await outbox.status()
    assert (status.waiting, status.refused, status.invalid) == (0, 1, 0)
    assert "AccessRefused" in host.sql("SELECT reason FROM metering.problems")

    await permit(vhost, ".*")
    await until_published(relay, outbox, left=0)
    assert len(await published(vhost, USER_CREATED_QUEUE)) == 1


async def permit(vhost: Vhost, types: str) -> None:
    """Let the outside publisher publish these types only."""
    right = {"exchange": "events", "write": types, "read": ""}
    await vhost.ask("PUT", "topic-permissions/{vhost}/publisher", right)
    # The broker caches a permission for the lifetime of a channel.
    for connection in await vhost.ask("GET", "vhosts/{vhost}/connections"):
        await vhost.ask("DELETE", f"connections/{connection['name'].replace(' ', '%20')}")


async def until_published(relay: Relay, outbox: Outbox, *, left: int) -> None:
    """Do rounds until at most ``left`` events are refused, and none else is left."""

    async def round_and_count() -> tuple[int, int]:
        await relay.publish_due()
        status = await outbox.status()
        return status.waiting, status.refused

    await eventually(round_and_count, lambda counts: counts == (0, left), within=60, every=0.2)


class CrashError(BaseException):
    """The process ends here."""


class Crashing:
    """An outbox and a publisher whose process ends before or after the ``at``-th step."""

    connected = True

    def __init__(self, outbox: Outbox, publisher: Publisher, at: int, *, before: bool) -> None:
        self._outbox = outbox
        self._publisher = publisher
        self._left = at
        self._before = before

    async def claim(self) -> list[Row]:
        """Claim, or crash."""
        return await self._step(self._outbox.claim)

    async def settle(self, outcomes: Sequence[RowOutcome]) -> None:
        """Settle, or crash."""
        await self._step(lambda: self._outbox.settle(outcomes))

    async def publish_all(self, publications: Sequence[Publication]) -> list[PublishError | None]:
        """Publish, or crash."""
        return await self._step(lambda: self._publisher.publish_all(publications))

    async def _step(self, work: Callable[[], Awaitable[T]]) -> T:
        crash, self._left = self._left == 0, self._left - 1
        if crash and self._before:
            raise CrashError
        result = await work()
        if crash:
            raise CrashError
        return result


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("step", range(STEPS))
async def test_a_crash_at_any_step_loses_nothing(
    host: Host, outbox: Outbox, publisher: Publisher, vhost: Vhost, step: int, *, before: bool
) -> None:
    """The next process publishes every event with its id, at most twice."""
    runs = [str(host.run_tool()) for _ in range(5)]
    crashing = Crashing(outbox, publisher, step, before=before)
    with pytest.raises(CrashError):
        await relay_of(crashing, crashing).publish_due()

    host.sql(END_LEASES)
    await relay_of(outbox, publisher).publish_due()

    got = await published(vhost)
    assert set(got) == set(runs)
    assert len(got) <= 2 * len(runs)
    assert host.waiting() == 0


async def test_a_leased_row_is_published_after_its_lease(
    host: Host, outbox: Outbox, publisher: Publisher, vhost: Vhost
) -> None:
    """No other loop takes it before; then its id is the same."""
    run = host.run_tool()
    await outbox.claim()

    await relay_of(outbox, publisher).publish_due()
    assert await published(vhost) == []
    host.sql("UPDATE metering.outbox SET due_at = due_at - interval '60 s'")
    await relay_of(outbox, publisher).publish_due()

    assert await published(vhost) == [str(run)]


async def test_several_loops_share_the_events(
    host: Host, outbox: Outbox, publisher: Publisher, vhost: Vhost
) -> None:
    """Each event is published by one of them."""
    host.run_tools(550)
    async with Database(host.url("outbox_loop"), name="test") as other:
        relays = [relay_of(outbox, publisher), relay_of(Outbox(other), publisher)]
        for _ in range(4):
            await asyncio.gather(*(each.publish_due() for each in relays))

    got = await published(vhost)
    assert len(got) == len(set(got)) == 550


async def test_no_round_begins_while_the_broker_is_away(
    host: Host, outbox: Outbox, publisher: Publisher, vhost: Vhost
) -> None:
    """An outage is no attempt, and takes no lease."""
    host.run_tool()
    await publisher.close()

    assert not await relay_of(outbox, publisher).publish_due()

    assert host.sql("SELECT attempts, due_at <= now() FROM metering.outbox") == "0|t"
    assert await published(vhost) == []


async def test_a_lost_connection_in_a_round_delays_and_loses_nothing(
    host: Host,
    outbox: Outbox,
    publisher: Publisher,
    vhost: Vhost,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The publisher stays without a connection: the events are due again, without an attempt."""
    monkeypatch.setattr(relaying, "RECONNECTED_WITHIN", 0.1)
    run = host.run_tool()
    lost = Lost(publisher)

    assert not await relay_of(outbox, lost).publish_due()
    assert host.sql("SELECT attempts, fault FROM metering.outbox") == "0|"
    await relay_of(outbox, publisher).publish_due()

    assert await published(vhost) == [str(run)]


class Lost:
    """A publisher that loses its connection by its first publish."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self.connected = True

    async def publish_all(self, publications: Sequence[Publication]) -> list[PublishError | None]:
        """Lose the connection."""
        self.connected = False
        return [PublishError("not confirmed: ConnectionClosed") for _ in publications]


async def test_published_events_are_kept_for_their_time(
    host: Host, outbox: Outbox, publisher: Publisher
) -> None:
    """Older ones are deleted; those that wait never are."""
    for _ in range(2):
        host.run_tool()
    await relay_of(outbox, publisher).publish_due()
    host.run_tool()
    age = "UPDATE metering.outbox SET waiting_since = now() - interval '1 year'"
    host.sql(age + ", sent_at = sent_at - interval '15 days'")

    assert await outbox.prune(timedelta(days=16)) == 0
    assert await outbox.prune(timedelta(days=14)) == 2

    assert host.sql("SELECT count(*) FROM metering.outbox") == "1"


async def test_kept_events_are_published_again_with_their_ids(
    host: Host, outbox: Outbox, publisher: Publisher, vhost: Vhost
) -> None:
    """After a restore of metering; those that were published before its time are left."""
    relay = relay_of(outbox, publisher)
    host.run_tool()
    await relay.publish_due()
    host.sql("UPDATE metering.outbox SET sent_at = sent_at - interval '1 day'")
    runs = sorted(str(host.run_tool()) for _ in range(3))
    await relay.publish_due()
    await published(vhost)
    since = datetime.now(UTC) - timedelta(hours=1)

    assert await outbox.count_sent(since) == 3
    assert await outbox.publish_again(since) == 3
    await relay.publish_due()

    assert await published(vhost) == runs
