"""The command line as an operator runs it, in a process of its own."""

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE, Process

import pytest

from integration.stripe_reporter.bench import KEY, METER, Bench
from local_stack.catalogue import base_environment
from local_stack.ports import free_ports
from nexus_messaging.inspection import NOT_COMPARED
from rig.secrecy import leaks, secrets_in
from rig.waiting import eventually
from stripe_emulator.keys import KeyState
from stripe_reporter.meters import DISPLAY_NAME


def settings_of(bench: Bench) -> dict[str, str]:
    """Return the settings of ``bench``."""
    return {
        "AMQP_URL": bench.vhost.url("stripe-reporter"),
        "DATABASE_URL": bench.database_url,
        "STRIPE_SECRET_KEY": KEY,
        "STRIPE_API_BASE": bench.emulator.url,
    }


async def start(bench: Bench, *arguments: str, **settings: str) -> Process:
    """Start ``stripe-reporter`` with the settings of ``bench``."""
    (port,) = free_ports(None)
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "stripe_reporter", *arguments),
        env={**base_environment(), **settings_of(bench), "HTTP_PORT": str(port), **settings},
        stdout=PIPE,
        stderr=PIPE,
    )


async def end(bench: Bench, process: Process) -> str:
    """Wait for the end of a process; return all it printed, which tells no secret."""
    printed, complained = await asyncio.wait_for(process.communicate(), 60)
    told = (printed + complained).decode()
    assert leaks({"output": told}, secrets_in(settings_of(bench))) == []
    return told


async def run(bench: Bench, *arguments: str, **settings: str) -> tuple[int | None, str]:
    """Run a command to its end; return its exit code and all it printed."""
    process = await start(bench, *arguments, **settings)
    told = await end(bench, process)
    return process.returncode, told


async def test_check_finds_nothing_wrong_on_a_sound_bench(bench: Bench) -> None:
    """Broker, database, key, clock and meter are each named and fine."""
    code, printed = await run(bench, "check")

    assert printed.splitlines() == [
        "settings: ok",
        "broker: ok",
        f"topology: {NOT_COMPARED}",
        "database: ok",
        "stripe key (test mode): ok",
        "clock: ok",
        f"meter {METER}: ok",
    ]
    assert code == 0


async def test_check_names_a_refused_key_without_showing_it(bench: Bench) -> None:
    """The operator learns that it is the key, and the key stays secret."""
    bench.account.keys.put(KEY, KeyState.REVOKED)

    code, printed = await run(bench, "check")

    assert "stripe key (test mode): Stripe: 401 (api_key_expired)" in printed
    assert KEY not in printed
    assert code == 1


async def test_meters_ensure_creates_what_is_missing(bench: Bench) -> None:
    """The missing meter is created as reports need it, the existing one left alone."""
    settings = {"STRIPE_TOKENS_METER_EVENT_NAME": "tokens_used"}

    before, _ = await run(bench, "check", **settings)
    first = await run(bench, "meters", "ensure", **settings)
    again = await run(bench, "meters", "ensure", **settings)
    after, _ = await run(bench, "check", **settings)

    assert (before, after) == (1, 0)
    assert first == again == (0, f"meter {METER}: ok\nmeter tokens_used: ok\n")
    created = bench.account.meters.active_for("tokens_used")
    assert created is not None
    assert created.formula == "sum"
    assert created.display_name == f"{DISPLAY_NAME}: tokens_used"


async def test_meters_ensure_reports_a_differing_meter_and_leaves_it(bench: Bench) -> None:
    """Replacing a meter would split its sums: that is for a person to decide."""
    described = {
        "display_name": "Other",
        "event_name": "tokens_used",
        "default_aggregation": {"formula": "count"},
    }
    bench.account.meters.create(described, bench.account.clock.now())

    code, printed = await run(
        bench, "meters", "ensure", STRIPE_TOKENS_METER_EVENT_NAME="tokens_used"
    )

    assert "meter tokens_used: formula is 'count', must be 'sum'" in printed
    assert code == 1


async def test_sigterm_finishes_what_is_in_hand(bench: Bench) -> None:
    """The call under way gets its answer, its outcome is told, and the process ends well."""
    event = bench.report(bench.customer())
    bench.account.options = bench.account.options.changed({"call_seconds": 1.0})
    process = await start(bench, "serve")
    await bench.send(event)
    await eventually(bench.calls, bool)

    process.send_signal(signal.SIGTERM)
    told = await end(bench, process)

    assert process.returncode == 0
    assert "stopped" in told
    await bench.outcomes(1)
    assert bench.attempts(event)["attempts"] == 1


@pytest.mark.parametrize("missing", ["STRIPE_SECRET_KEY", "AMQP_URL"])
async def test_a_missing_setting_is_named(bench: Bench, missing: str) -> None:
    """The exit code tells a wrong setting from a failure."""
    code, printed = await run(bench, "serve", **{missing: ""})

    assert f"{missing}: not set" in printed
    assert code == 2
