"""`usage-ingest adopt` completes a restored ledger, and nothing that was counted is sent again."""

from dataclasses import replace
from uuid import uuid4

import pytest

from integration.usage_ingest.lost_ledger import ONE, RUNS, TOKENS, LostLedger, output, run


async def test_reports_made_after_the_backup_are_restored(
    lost: LostLedger,
) -> None:
    """With events of the backup that were claimed later, events published again, and late ones."""
    early, gone = [run(1, token_count=5), run(2)], [run(12, token_count=7), run(13)]
    await lost.record(*early)
    lost.back_up()
    await lost.claim()
    late = [run(3), run(0.5, token_count=11)]
    await lost.record(*gone, *late)
    await lost.claim()
    calls = await lost.lose()
    await lost.record(*gone, *late)

    adopted = await lost.adopt(calls, "--execute")

    assert adopted == output(0, "6 0 0 6 6")
    assert await lost.claim() == 0
    assert await lost.disagreeing() == []
    assert await lost.reports() == [(RUNS, "reported", 3, 6), (TOKENS, "reported", 3, 23)]


async def test_events_that_were_never_claimed_stay_due(lost: LostLedger) -> None:
    """A late run in a counted window, and runs of windows that were never claimed.

    A report that lacks its run does not take them.
    """
    counted, absent = run(5), run(35)
    late, earlier, after = run(1), run(25), run(45)
    lost.back_up()
    await lost.record(counted, absent)
    await lost.claim()
    calls = await lost.lose()
    await lost.record(counted, late, earlier, after)

    fault = "events missing, to be published again: 1 (cus_one 1)"
    assert await lost.adopt(calls, "--execute") == output(1, "2 0 0 2 1", fault)
    await lost.record(absent)
    assert await lost.adopt(calls, "--execute") == output(0, "2 2 0 0 1")
    assert await lost.claim() == 3
    [(late_state,)] = await lost.rows(
        "SELECT r.state FROM usage_events e JOIN usage_reports r USING (claim_id)"
        " ORDER BY e.occurred_at LIMIT 1"
    )
    assert late_state == "pending"


async def test_report_that_may_have_been_counted_keeps_its_identifier(lost: LostLedger) -> None:
    """It is forwarded, and can be replayed; a refused report stays refused, with its events."""
    lost.back_up()
    await lost.record(run(1), run(11), run(21))
    await lost.claim()
    ids = [row[0] for row in await lost.rows("SELECT report_id FROM usage_reports ORDER BY 1")]
    lost.records = {
        ids[0]: {"state": "unknown", "ever_unknown": True},
        ids[1]: {"state": "calling", "answered_at": None},
        ids[2]: {"state": "refused", "reason": "refused_by_stripe"},
    }
    calls = await lost.lose()
    await lost.record(run(1), run(11), run(21))

    assert await lost.adopt(calls, "--execute") == output(0, "3 0 0 3 3")
    found = await lost.rows("SELECT report_id, state, reason FROM usage_reports ORDER BY 1")
    assert found == [
        (ids[0], "forwarded", None),
        (ids[1], "forwarded", None),
        (ids[2], "rejected", "refused_by_stripe"),
    ]
    assert await lost.claim() == 0


async def test_pending_reports_of_the_backup_get_their_state(lost: LostLedger) -> None:
    """They were forwarded and counted after it, and their answers do not come again."""
    await lost.record(run(1), run(11))
    await lost.claim()
    lost.back_up()
    calls = await lost.lose()

    assert await lost.adopt(calls, "--execute") == output(0, "2 2 2 0 0")
    assert await lost.reports() == [(RUNS, "reported", 2, 2)]
    assert await lost.adopt(calls, "--execute") == output(0, "2 2 0 0 0")


async def test_report_superseded_after_the_backup_stays_so(lost: LostLedger) -> None:
    """The customer was deleted and made again in the lost time: the backup has the old report."""
    await lost.record(run(1))
    await lost.claim()
    lost.back_up()
    [(old,)] = await lost.rows("SELECT report_id FROM usage_reports")
    lost.records[old] = {"state": "refused", "reason": "no_such_customer"}
    await lost.rows(
        "UPDATE usage_reports SET state = 'rejected', reason = 'no_such_customer' RETURNING 1"
    )
    await lost.announce(ONE, "cus_two", 2)
    assert await lost.sweep() == 1
    calls = await lost.lose()

    early = await lost.adopt(calls, "--execute")
    await lost.announce(ONE, "cus_two", 2)
    adopted = await lost.adopt(calls, "--execute")

    assert early == output(
        1, "2 1 1 0 0", "reports of customers that are not known yet: 1 (cus_two 1)"
    )
    assert adopted == output(0, "2 1 1 1 0")
    assert await lost.sweep() == 0
    assert await lost.reports() == [(RUNS, "reported", 1, 1), (RUNS, "superseded", 1, 1)]


async def test_without_execute_nothing_is_changed(lost: LostLedger) -> None:
    """The counts are those of what would be done."""
    lost.back_up()
    await lost.record(run(1), run(2))
    await lost.claim()
    calls = await lost.lose()
    await lost.record(run(1), run(2))

    code, lines = await lost.adopt(calls)

    assert (code, lines[0].rpartition("; ")[2]) == (0, "nothing was changed: add --execute")
    assert "1 put back; 2 events claimed" in lines[0]
    assert await lost.reports() == []


@pytest.mark.parametrize(
    ("window", "dimensions"), [(0, ()), (0, ("tool_name",)), (60, ("server_id", "tool_name"))]
)
async def test_events_are_found_by_window_and_dimensions(
    lost: LostLedger, window: int, dimensions: tuple[str, ...]
) -> None:
    """Without windows, with many runs of one moment; in windows of a minute, split by tool."""
    ledger = replace(lost, window=window, dimensions=dimensions)
    runs = [
        run(second, tool_name=tool, token_count=tokens)
        for second in (1, 1, 1, 30)
        for tool in ("radar", "forecast")
        for tokens in (0, 2)
    ]
    ledger.back_up()
    await ledger.record(*runs)
    await ledger.claim()
    calls = await ledger.lose()
    await ledger.record(*runs)

    code, lines = await ledger.adopt(calls, "--execute")

    assert (code, lines[1:]) == (0, [])
    assert lines[0].endswith("16 events claimed for them")
    assert await ledger.claim() == 0
    assert await ledger.disagreeing() == []
    await ledger.database.close()


async def test_expired_events_are_claimed_for_their_report(lost: LostLedger) -> None:
    """Reported on the 35th day and published again a day later, they expired."""
    lost.back_up()
    await lost.record(run(1))
    await lost.claim()
    calls = await lost.lose()
    await lost.record(run(1))
    await lost.rows("UPDATE usage_events SET billing_state = 'expired' RETURNING 1")

    assert await lost.adopt(calls, "--execute") == output(0, "1 0 0 1 1")


async def test_many_reports_are_restored_in_batches(lost: LostLedger) -> None:
    """More than one batch, of several customers; the order of the list does not matter."""
    users = [uuid4() for _ in range(30)]
    for number, user in enumerate(users):
        await lost.announce(user, f"cus_{number}")
    runs = [run(second, user, token_count=second) for user in users for second in range(60)]
    lost.back_up()
    await lost.record(*runs)
    await lost.claim()
    calls = (await lost.lose()).splitlines()
    for number, user in enumerate(users):
        await lost.announce(user, f"cus_{number}")
    await lost.record(*runs)

    shuffled = "\n".join((*sorted(calls[:-1], key=lambda line: line[::-1]), calls[-1]))
    reports = len(users) * 12

    assert await lost.adopt(shuffled, "--execute") == output(
        0, f"{reports} 0 0 {reports} {len(runs)}"
    )
    assert await lost.disagreeing() == []
