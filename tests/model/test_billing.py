"""Billing as a whole, driven at random on real databases and compared with a model."""

import asyncio
import re
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import make_url

from local_stack.servers import Database as PostgresServer
from local_stack.sql import run_sql
from model.environment import Environment, audit
from model.sequences import SEQUENCES, StepSequence
from model.state_machine import BillingMachine
from model.transitions import MARK, TABLES, Move, states
from stripe_reporter import handlers
from support.databases import Clone


@pytest.fixture
def urls(clone: Clone) -> dict[str, str]:
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
def environment(
    urls: dict[str, str], administration: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Environment]:
    """Return the real parts on databases that record every move."""
    run_sql(administration["usage_ingest"], audit(("usage_events", "usage_reports")))
    run_sql(administration["stripe_reporter"], audit(("meter_calls",)))
    monkeypatch.setattr(handlers, "SHORT_PAUSES", (0.0,))
    watchers = (administration["usage_ingest"], administration["stripe_reporter"])
    fresh = Environment(urls["usage_ingest"], urls["stripe_reporter"], watchers)
    yield fresh
    fresh.close()


def drive(environment: Environment, *, examples: int, steps: int, same: bool) -> None:
    """Drive the machine with the ``same`` examples each time, or with new ones."""

    class Driven(BillingMachine):
        def __init__(self) -> None:
            super().__init__(environment)

    run_state_machine_as_test(
        Driven,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=same,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_every_move_of_the_state_diagrams_happens(environment: Environment) -> None:
    """The fixed sequences make each move of the documents, and no other."""
    made: set[Move] = set()
    for sequence in SEQUENCES:
        steps = StepSequence(environment)
        sequence(steps)
        made |= steps.made

    assert made == {move for _, _, moves in TABLES.values() for move in moves}


@pytest.mark.timeout(600)
def test_usage_is_billed_once_in_any_order_of_actions(environment: Environment) -> None:
    """Each row is as predicted, each move is in the table, and in the end every sum agrees."""
    drive(environment, examples=8, steps=40, same=True)


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_usage_is_billed_once_in_long_sequences(environment: Environment) -> None:
    """The same with longer sequences and more of them."""
    drive(environment, examples=60, steps=100, same=False)


def test_states_of_the_diagrams_are_those_of_the_databases(
    administration: dict[str, str],
) -> None:
    """The documents name the states that the constraints allow."""
    query = "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'c'"
    checks = "\n".join(run_sql(url, query) for url in administration.values()).splitlines()
    for table, (_, column, moves) in TABLES.items():
        [check] = [each for each in checks if each.startswith(f"{table}_{column}_check|")]
        marks = {MARK} if table == "meter_calls" else set()
        assert set(re.findall(r"'(\w+)'::text", check)) == states(moves) - marks
