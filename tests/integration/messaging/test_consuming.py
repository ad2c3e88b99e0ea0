"""What every kind of consumer promises, whatever its handler does."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import aiormq
import pytest
from structlog.testing import capture_logs

from integration.messaging.bench import (
    DEAD_LETTERS,
    PREFETCH,
    QUEUE,
    Bench,
    close_connections,
    well,
)
from nexus_contracts import CONTENT_TYPE, ToolExecuted, read_event
from nexus_messaging.errors import PermanentError, TransientError
from nexus_messaging.message import Delivery
from nexus_messaging.reasons import Reason
from nexus_messaging.retry import ATTEMPT, BUDGET, CRASHED_FROM, HANDLED_ALONE_FROM, Done, Outcome
from nexus_messaging.topology import EVENTS, RETRY_RETURN, TIERS, USER_CREATED_QUEUE
from support.events import tool_run, user_created
from support.vhost import Vhost
from support.waiting import eventually


async def fail(_delivery: Delivery) -> Outcome:
    """Fail as a bug does, with a text that quotes what it choked on."""
    raise RuntimeError("s3cret@example.com")


async def test_a_handled_message_is_gone(bench: Bench) -> None:
    """It is neither delivered again nor anywhere else, and it was counted."""
    async with bench.consuming():
        await bench.vhost.publish(*(tool_run() for _ in range(PREFETCH)))
        await bench.all_done(PREFETCH)

    assert len(bench.handled) == PREFETCH
    assert await bench.waiting() == 0
    assert await bench.vhost.depth(DEAD_LETTERS) == 0


async def test_a_failure_nobody_foresaw_is_retried_until_the_budget_is_spent(bench: Bench) -> None:
    """Exactly five deliveries, then a dead letter that does not quote the failure's text."""
    bench.behave = fail

    async with bench.consuming():
        await bench.vhost.publish(tool_run())
        (letter,) = await bench.dead_letters(1)

    assert len(bench.handled) == BUDGET
    assert [delivery.exchange for delivery in bench.handled] == [EVENTS, *[RETRY_RETURN] * 4]
    assert letter.headers["nexus-reason"] == "attempts_spent"
    assert letter.headers["nexus-attempts"] == BUDGET
    assert letter.headers["nexus-error"] == "RuntimeError"
    assert ATTEMPT not in letter.headers


async def test_a_permanent_failure_is_dead_lettered_at_once_and_whole(bench: Bench) -> None:
    """The dead letter keeps what identifies the message and says all that an operator needs."""
    stamp = datetime(2026, 3, 1, 12, tzinfo=UTC)
    bench.behave = refuse

    async with bench.consuming():
        await bench.vhost.publish_raw(
            b"\x00 any bytes \xff",
            "tool.executed.v1",
            message_id="m-1",
            type="tool.executed.v1",
            content_type=CONTENT_TYPE,
            timestamp=stamp,
            expiration=timedelta(hours=1),
            priority=3,
            reply_to="somewhere",
            correlation_id="c-1",
            app_id="hub",
            headers={"x-trace": "t", "tenant": 7, "nexus-attempt": 4},
        )
        (letter,) = await bench.dead_letters(1)

    assert letter.body == b"\x00 any bytes \xff"
    assert (letter.message_id, letter.type) == ("m-1", "tool.executed.v1")
    assert (letter.content_type, letter.timestamp) == (CONTENT_TYPE, stamp)
    assert letter.delivery_mode == 2
    assert (letter.expiration, letter.reply_to, letter.correlation_id) == (None, None, None)
    assert (letter.app_id, letter.priority) == (None, 0)
    assert {name for name in letter.headers if not name.startswith("x-delivery")} == {
        "nexus-reason",
        "nexus-error",
        "nexus-attempts",
        "nexus-first-failed-at",
        "nexus-failed-at",
        "nexus-service",
        "nexus-requeue-to",
    }
    assert letter.headers["nexus-error"] == "PermanentError: holder: hub"
    assert letter.headers["nexus-service"] == "usage-ingest"
    assert letter.headers["nexus-requeue-to"] == QUEUE
    assert bench.count("dead_lettered", reason="event_id_taken") == 1


async def test_a_wrong_move_ends_well_by_following_the_header(bench: Bench) -> None:
    """A user that was moved to the queue of tool runs gets to its own queue."""
    vhost, event = bench.vhost, user_created(uuid4())
    bench.behave = read_as_tool_run

    async with bench.consuming():
        # As a move does, which leaves nothing of where the message was.
        await vhost.publish_raw(event.body(), QUEUE, exchange="", type=event.type)
        (letter,) = await bench.dead_letters(1)
        await vhost.move(DEAD_LETTERS, str(letter.headers["nexus-requeue-to"]))
        message = await vhost.take(USER_CREATED_QUEUE)

    assert letter.headers["nexus-reason"] == "invalid"
    assert message.body == event.body()


async def read_as_tool_run(delivery: Delivery) -> Outcome:
    """Read the body as the consumer of tool runs does."""
    read_event(delivery.message.body, [ToolExecuted])
    return Done()


async def refuse(_delivery: Delivery) -> Outcome:
    """Fail for good."""
    raise PermanentError(Reason.EVENT_ID_TAKEN, "holder: hub")


async def test_waiting_for_something_to_pass_spends_no_budget(bench: Bench) -> None:
    """More waits than the budget has deliveries, and the message is handled in the end."""

    async def wait_a_while(_delivery: Delivery) -> Outcome:
        if len(bench.handled) <= BUDGET + 2:
            raise TransientError("not yet", tier=TIERS[0])
        return Done()

    bench.behave = wait_a_while
    async with bench.consuming():
        await bench.vhost.publish(tool_run())
        await bench.all_done(1)

    assert [each.headers[ATTEMPT] for each in bench.handled[1:]] == [1] * (BUDGET + 2)
    assert await bench.vhost.depth(DEAD_LETTERS) == 0


async def test_one_bad_message_leaves_its_neighbours_alone(bench: Bench) -> None:
    """Among many it alone is retried and dead-lettered; each of the others is done once."""
    bad = tool_run()

    async def choke_on_one(delivery: Delivery) -> Outcome:
        if delivery.message.message_id == str(bad.id):
            raise RuntimeError
        return Done()

    bench.behave = choke_on_one
    good = [tool_run() for _ in range(30)]
    await bench.vhost.publish(*good[:15], bad, *good[15:])
    async with bench.consuming():
        (letter,) = await bench.dead_letters(1)
        await bench.all_done(30)

    assert letter.message_id == str(bad.id)
    assert bench.count("done") == 30
    assert bench.ids().count(str(bad.id)) >= BUDGET


async def test_an_operators_move_gives_a_full_fresh_budget_every_time(bench: Bench) -> None:
    """Dead-lettered, moved, dead-lettered, moved: each time there are five more deliveries."""
    bench.behave = fail

    async with bench.consuming():
        await bench.vhost.publish(tool_run())
        for spent in (BUDGET, 2 * BUDGET, 3 * BUDGET):
            (letter,) = await bench.dead_letters(1)
            assert letter.headers["nexus-attempts"] == BUDGET
            assert len(bench.handled) == spent
            if spent == 3 * BUDGET:
                bench.behave = well
            await bench.vhost.move(DEAD_LETTERS, QUEUE)
            await eventually(bench.tried, spent.__lt__)
        await bench.all_done(1)

    assert len(bench.handled) == 3 * BUDGET + 1
    assert await bench.vhost.depth(DEAD_LETTERS) == 0


async def test_what_the_broker_dead_lettered_starts_anew_when_moved(bench: Bench) -> None:
    """The broker's own dead letter carries no reason of ours, and old counters mean nothing."""
    bench.behave = fail
    await bench.vhost.publish_raw(b"x", "tool.executed.v1", headers={ATTEMPT: BUDGET})
    async with bench.vhost.channel() as channel:
        queue = await channel.get_queue(QUEUE)
        got = await queue.get()
        assert got is not None
        await got.reject(requeue=False)
    (dead,) = await bench.dead_letters(1)
    assert "x-death" in dead.headers

    async with bench.consuming():
        await bench.vhost.move(DEAD_LETTERS, QUEUE)
        await eventually(bench.tried, lambda handled: handled == BUDGET)
        (letter,) = await bench.dead_letters(1)

    assert letter.headers["nexus-attempts"] == BUDGET
    assert "x-death" not in letter.headers


async def test_unreadable_messages_are_dead_letters_with_their_reasons(bench: Bench) -> None:
    """Each fault of a message has its own reason, and the good message is handled."""

    async def read(delivery: Delivery) -> Outcome:
        read_event(delivery.message.body, [ToolExecuted])
        return Done()

    bench.behave = read
    good = tool_run()
    unknown_major = good.body().replace(b"tool.executed.v1", b"tool.executed.v2")
    async with bench.consuming():
        for body in (b"{", unknown_major, good.body().replace(b"direct", b"sideways")):
            await bench.vhost.publish_raw(body, "tool.executed.v1", content_type="text/html")
        await bench.vhost.publish(good)
        letters = await bench.dead_letters(3)
        await bench.all_done(1)

    reasons = sorted(str(letter.headers["nexus-reason"]) for letter in letters)
    assert reasons == ["invalid", "unreadable", "unsupported_version"]
    assert {letter.content_type for letter in letters} == {"text/html"}


async def test_what_was_returned_too_often_is_not_read_again(bench: Bench) -> None:
    """A message that seems to kill its readers is dead-lettered unread; its neighbour is not."""
    await bench.vhost.publish(tool_run())
    await return_to_queue(bench, times=CRASHED_FROM)
    await bench.vhost.publish(tool_run())

    async with bench.consuming():
        (letter,) = await bench.dead_letters(1)
        await bench.all_done(1)

    assert letter.headers["nexus-reason"] == "crashed_consumer"
    assert letter.message_id not in bench.ids()


async def return_to_queue(bench: Bench, *, times: int) -> None:
    """Take every message of the queue and return it, as often."""
    async with bench.vhost.channel() as channel:
        queue = await channel.get_queue(QUEUE)
        for _ in range(times):
            taken = []
            while (got := await queue.get(fail=False)) is not None:
                taken.append(got)
            for got in taken:
                await got.reject(requeue=True)


async def test_suspects_are_in_hand_one_at_a_time(bench: Bench) -> None:
    """Should one of them kill the process, none of the others is returned along with it."""
    handling, released = asyncio.Event(), asyncio.Event()

    async def hang(_delivery: Delivery) -> Outcome:
        handling.set()
        await released.wait()
        return Done()

    bench.behave = hang
    await bench.vhost.publish(*(tool_run() for _ in range(8)))
    await return_to_queue(bench, times=HANDLED_ALONE_FROM)
    await bench.vhost.publish(*(tool_run() for _ in range(30)))
    async with bench.consuming():
        await handling.wait()
        assert await bench.vhost.depth(QUEUE) == 37
        assert len(bench.handled) == 1
        released.set()
        await bench.all_done(38)

    assert [each.returned for each in bench.handled] == [HANDLED_ALONE_FROM] * 8 + [0] * 30


async def test_after_one_good_message_many_are_in_hand(bench: Bench) -> None:
    """As many as are prefetched; a connection that was lost begins warily again."""
    released = asyncio.Event()

    async def hang_but_for_the_first(_delivery: Delivery) -> Outcome:
        if len(bench.handled) > 1:
            await released.wait()
        return Done()

    bench.behave = hang_but_for_the_first
    await bench.vhost.publish(*(tool_run() for _ in range(2 * PREFETCH + 1)))
    async with bench.consuming():
        await eventually(lambda: bench.vhost.depth(QUEUE), lambda depth: depth == PREFETCH)
        released.set()
        await bench.all_done(2 * PREFETCH + 1)
        await close_connections(bench.vhost, 2)
        await bench.vhost.publish(tool_run())
        await bench.all_done(2 * PREFETCH + 2)


async def test_a_suspect_is_handled_alone(batch_bench: Bench) -> None:
    """What was returned three times shares no batch: should it crash us, it does so alone."""
    await batch_bench.vhost.publish(tool_run(), tool_run())
    await return_to_queue(batch_bench, times=HANDLED_ALONE_FROM)
    await batch_bench.vhost.publish(*(tool_run() for _ in range(5)))

    async with batch_bench.consuming():
        await batch_bench.all_done(7)

    suspects = [each for each in batch_bench.handled if each.returned]
    assert [each.returned for each in suspects] == [HANDLED_ALONE_FROM] * 2
    assert batch_bench.batches[:2] == [1, 1]


async def test_an_ack_that_is_slow_to_be_written_is_not_overtaken(
    vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that speaks for older deliveries, too, would make their tags unknown to the broker."""
    bench = Bench(vhost, "single")
    write, held = aiormq.Channel.basic_ack, asyncio.Event()

    async def slow_at_first(self: aiormq.Channel, tag: int, **options: Any) -> None:
        if tag == 2:
            held.set()
            await asyncio.sleep(0.2)
        await write(self, tag, **options)

    async def second_before_third(delivery: Delivery) -> Outcome:
        if bench.handled.index(delivery) == 2:
            await held.wait()
        return Done()

    monkeypatch.setattr(aiormq.Channel, "basic_ack", slow_at_first)
    bench.behave = second_before_third
    await vhost.publish(*(tool_run() for _ in range(5)))
    with capture_logs() as logged:
        async with bench.consuming():
            await eventually(bench.waiting, lambda waiting: waiting == 0)
            await bench.all_done(5)

    assert len(bench.handled) == 5
    assert not [line for line in logged if line["event"] == "not_consuming"]
