"""In any order of a user's messages, whatever fails: one customer, with the latest change."""

import asyncio
import random
from collections.abc import Iterator
from datetime import timedelta
from itertools import permutations
from uuid import uuid4

import pytest
from sqlalchemy import make_url

from customer_provisioner.linking import LinkRefusedError
from customer_provisioner.storage.reader import ProfileReader
from customer_provisioner.sweep import sweep, sweep_changes
from local_stack.servers import Database as PostgresServer
from local_stack.sql import run_sql
from model.transitions import PROVISIONING
from nexus_contracts import UserCreated, UserCreatedV2, UserUpdated
from nexus_database import Database
from nexus_messaging.clock import utc_now

from .conftest import Bench, profile_of

MESSAGES = ("v1", "v2", "newer", "older", "link")


class User:
    """One user with all messages that may come about it."""

    def __init__(self, bench: Bench, database: Database) -> None:
        self.bench, self.reader = bench, ProfileReader(database)
        account = bench.stripe.account
        self.own = str(account.customers.create({}, account.clock.now())["id"])
        self.id, self.at = uuid4(), utc_now()
        self.plain = UserCreated(user_id=self.id, email="first@example.com")
        self.linked = UserCreatedV2(user_id=self.id, stripe_customer_id=self.own)

    async def take(self, message: str) -> None:
        """Process one message as its handler does."""
        bench = self.bench
        match message:
            case "v1":
                await bench.keep(self.plain)
                await bench.provisioner.provision(self.id)
            case "v2" | "link":
                await bench.keep(self.linked)
                await bench.provisioner.provision(self.id)
            case "newer" | "older":
                minutes = 2 if message == "newer" else 1
                update = UserUpdated(user_id=self.id, email=f"{message}@example.com")
                time = self.at + timedelta(minutes=minutes)
                await bench.changes.keep(update, time, bench.clock())
                await bench.follower.follow(self.id)

    async def settle(self) -> None:
        """Let the sweeps finish, without faults."""
        bench, metrics = self.bench, self.bench.metrics
        bench.stripe.account.faults.remove()
        for _ in range(4):
            bench.advance(minutes=6)
            await sweep(self.reader, bench.provisioner, metrics, bench.clock)
            await sweep_changes(bench.changes, bench.follower, metrics, bench.clock)

    async def check(self, database: Database) -> str:
        """Return the only customer: it is the stored one, and has the latest address."""
        profile = await profile_of(database, self.plain)
        (customer,) = self.bench.stripe.customers(self.id)
        assert profile.stripe_customer_id == customer["id"]
        assert customer["email"] == "newer@example.com"
        return str(customer["id"])


AUDIT = """
CREATE TABLE moves (kind text, before text, after text);
CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE before text := '';
BEGIN
    IF TG_OP = 'UPDATE' THEN EXECUTE 'SELECT ' || TG_ARGV[0] || ' FROM (SELECT ($1).*) t'
        INTO before USING OLD; END IF;
    EXECUTE 'INSERT INTO public.moves SELECT $1, $2, ' || TG_ARGV[0] || ' FROM (SELECT ($3).*) t'
        USING TG_TABLE_NAME, before, NEW;
    RETURN NULL;
END $$;
"""
"""Notes every move of a row, in the words of the table of states."""


@pytest.fixture
def moves(postgres: PostgresServer, database: Database) -> Iterator[None]:
    """Compare all moves of the test with the documented ones."""
    admin, name = make_url(postgres.superuser_url), database.engine.url.database
    url = admin.set(database=name).render_as_string(hide_password=False)
    triggers = (
        f"CREATE TRIGGER audit AFTER INSERT OR UPDATE ON {table} FOR EACH ROW"
        f" EXECUTE FUNCTION audit({quoted(state)})"
        for table, (_, state, _) in PROVISIONING.items()
    )
    run_sql(url, ";".join((AUDIT, *triggers)))
    yield
    made = run_sql(url, "SELECT DISTINCT kind, before, after FROM moves WHERE before <> after")
    known = {
        f"{table}|{move.before}|{move.after}"
        for table, (_, _, moves) in PROVISIONING.items()
        for move in moves
    }
    assert made, "no move was noted"
    assert set(made.split()) <= known


def quoted(text: str) -> str:
    """Return a text as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


@pytest.mark.usefixtures("moves")
async def test_every_order_of_messages_ends_with_one_customer(
    bench: Bench, database: Database
) -> None:
    """The first message that asks for a customer decides which; the latest change counts."""
    for order in permutations(("v1", "v2", "newer", "older")):
        user = User(bench, database)
        for message in order:
            await user.take(message)
        await user.settle()

        linked = order.index("v2") < order.index("v1")
        assert (await user.check(database) == user.own) is linked, order


@pytest.mark.usefixtures("moves")
@pytest.mark.parametrize(
    "seed", [*range(6), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(6, 60))]
)
async def test_random_messages_faults_and_waits_end_with_one_customer(
    bench: Bench, database: Database, seed: int
) -> None:
    """Messages at once and again, lost answers, hours between them."""
    chance = random.Random(seed)  # noqa: S311 - repeatable by seed, no secret
    user = User(bench, database)
    for _ in range(6):
        kind = chance.choice(("reset", "truncated", "html_503", "server_error", "rate_limited"))
        method = chance.choice(("POST", "POST", "GET"))
        bench.stripe.inject(kind, when=chance.choice(("before", "after")), method=method)
        at_once = chance.choices(MESSAGES, k=chance.choice((1, 3)))
        await asyncio.gather(*map(user.take, at_once), return_exceptions=True)
        bench.advance(hours=chance.choice((0, 0, 0.1, 5, 19.9, 21, 50)))
    await asyncio.gather(*map(user.take, MESSAGES), return_exceptions=True)

    await user.settle()

    await user.check(database)


async def test_a_foreign_customer_leaves_the_user_to_an_operator_in_any_order(
    bench: Bench, database: Database
) -> None:
    """Version 1 before it makes a customer, which stays; after it, it waits like the link."""
    for order in permutations(("v1", "v2")):
        user = User(bench, database)
        bench.stripe.delete(user.own)
        results = [await asyncio.gather(user.take(each), return_exceptions=True) for each in order]

        made = bench.stripe.customers(user.id)
        refused = sum(isinstance(each, LinkRefusedError) for (each,) in results)
        assert (len(made), refused) == ((1, 0) if order[0] == "v1" else (0, 2))
