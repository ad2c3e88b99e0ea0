"""Billing as a whole, driven at random on real databases against a reference of plain Python."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import make_url

from local_stack.servers import Database as PostgresServer
from local_stack.sql import run_sql
from model.machine import Billing
from model.stage import Stage, audit
from model.transitions import TABLES, Move, states
from model.walks import WALKS, Walk
from stripe_reporter import handlers


@pytest.fixture
def urls(clone: Callable[[str], Awaitable[str]]) -> dict[str, str]:
    """Return the URLs of fresh databases by their services' roles."""

    async def made() -> dict[str, str]:
        return {name: await clone(name) for name in ("usage_ingest", "stripe_reporter")}

    return asyncio.run(made())


@pytest.fixture
def administration(postgres: PostgresServer, urls: dict[str, str]) -> dict[str, str]:
    """Return the same databases' URLs as an administrator."""
    admin = make_url(postgres.superuser_url)
    return {
        name: admin.set(database=make_url(url).database).render_as_string(hide_password=False)
        for name, url in urls.items()
    }


@pytest.fixture
def stage(
    urls: dict[str, str], administration: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stage]:
    """Return the real parts on databases that note every move."""
    run_sql(administration["usage_ingest"], audit(("usage_events", "usage_reports")))
    run_sql(administration["stripe_reporter"], audit(("meter_calls",)))
    monkeypatch.setattr(handlers, "SHORT_PAUSES", (0.0,))
    watchers = (administration["usage_ingest"], administration["stripe_reporter"])
    fresh = Stage(urls["usage_ingest"], urls["stripe_reporter"], watchers)
    yield fresh
    fresh.close()


def drive(stage: Stage, *, examples: int, steps: int, same: bool) -> None:
    """Drive the machine, the ``same`` ways every time or new ones."""

    class OnStage(Billing):
        def __init__(self) -> None:
            super().__init__(stage)

    run_state_machine_as_test(
        OnStage,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=same,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_every_move_of_the_state_diagrams_happens(stage: Stage) -> None:
    """What the documents draw is what the databases do, all of it."""
    made: set[Move] = set()
    for walk in WALKS:
        course = Walk(stage)
        walk(course)
        made |= course.made

    assert made == {move for _, _, moves in TABLES.values() for move in moves}


@pytest.mark.timeout(600)
def test_whatever_happens_in_whatever_order_usage_is_billed_once(stage: Stage) -> None:
    """Each row is as predicted, each move is drawn, and in the end every sum agrees."""
    drive(stage, examples=8, steps=40, same=True)


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_whatever_happens_for_long_usage_is_billed_once(stage: Stage) -> None:
    """The same, further and more often."""
    drive(stage, examples=60, steps=100, same=False)


def test_the_databases_know_the_states_of_the_diagrams_and_no_other(
    administration: dict[str, str],
) -> None:
    """The documents name what the constraints allow."""
    query = "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'c'"
    checks = "\n".join(run_sql(url, query) for url in administration.values()).splitlines()
    for table, (_, column, moves) in TABLES.items():
        [check] = [each for each in checks if each.startswith(f"{table}_{column}_check|")]
        assert set(re.findall(r"'(\w+)'::text", check)) == states(moves)
