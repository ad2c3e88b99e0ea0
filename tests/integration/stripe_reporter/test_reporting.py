"""From `usage.recorded` to a meter event and its outcome, with everything around it real."""

from urllib.parse import quote

from integration.stripe_reporter.bench import Bench
from nexus_contracts import UsageRejected, UsageReported
from nexus_messaging.topology import INTERNAL, USAGE_OUTCOMES_QUEUE


async def test_a_report_is_counted_and_its_outcome_published(bench: Bench) -> None:
    """One report becomes one meter event of its value, and `usage.reported`."""
    event = bench.report(bench.customer(), value=7)

    async with bench.reporting():
        await bench.send(event)
        (outcome,) = await bench.outcomes(1)

    assert bench.counted(event.data.stripe_customer_id) == 7
    assert isinstance(outcome.data, UsageReported)
    assert outcome.data.report_id == event.data.report_id
    assert not outcome.data.ever_unknown


async def test_a_report_of_an_unknown_customer_is_dead_lettered_and_rejected(bench: Bench) -> None:
    """Stripe's refusal becomes `usage.rejected` and a dead letter with the same reason."""
    event = bench.report("cus_nobody")

    async with bench.reporting():
        await bench.send(event)
        (letter,) = await bench.dead_letters(1)
        (outcome,) = await bench.outcomes(1)

    assert letter.headers["nexus-reason"] == "no_such_customer"
    assert "payload[stripe_customer_id]" in str(letter.headers["nexus-error"])
    assert "cus_nobody" not in str(letter.headers)
    assert isinstance(outcome.data, UsageRejected)
    assert outcome.data.reason == "no_such_customer"
    assert not outcome.data.ever_unknown


async def test_outcomes_that_no_queue_takes_hold_up_no_other(bench: Bench) -> None:
    """Outcomes are published together; one that fails is published with its next delivery."""
    counted = [bench.report(bench.customer()) for _ in range(10)]
    refused = [bench.report(f"cus_nobody{n}") for n in range(3)]
    bench.account.options = bench.account.options.changed({"call_seconds": 0.3})
    path, key = f"bindings/{{vhost}}/e/{INTERNAL}/q/{USAGE_OUTCOMES_QUEUE}", "usage.rejected.*"
    await bench.vhost.ask("DELETE", f"{path}/{quote(key, safe='')}")

    async with bench.reporting():
        await bench.send(*counted[:5], *refused, *counted[5:])
        outcomes = await bench.outcomes(len(counted))
        await bench.vhost.ask("POST", path, {"routing_key": key, "arguments": {}})
        await bench.dead_letters(len(refused))
        everything = await bench.outcomes(len(counted) + len(refused))

    assert all(isinstance(outcome.data, UsageReported) for outcome in outcomes)
    assert len(everything) == len(counted) + len(refused)
    assert await bench.handled("reported_again") == 0
