"""The operators' commands, as processes: what they print, what they change, and no secrets."""

import asyncio
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from customer_provisioner.checks import NO_PLANS, NOT_FOLLOWED
from customer_provisioner.linking import LinkRefusedError
from customer_provisioner.profile import announcement
from customer_provisioner.source_database import source_database
from customer_provisioner.storage.reader import ProfileReader
from customer_provisioner.storage.subscriptions import SubscriptionStore
from customer_provisioner.subscriptions import after_fetch
from customer_provisioner.sweep import sweep
from customer_provisioner.user_list import UnreadableListError, UnusableEntry
from local_stack.ports import LOOPBACK
from local_stack.server_process import ServerProcess
from local_stack.servers import Database as PostgresServer
from local_stack.sql import run_sql
from nexus_broker_admin.inspection import NOT_COMPARED
from nexus_contracts import UserCreated, UserCreatedV2, read_event
from nexus_database import Database
from nexus_messaging.clock import utc_now
from nexus_messaging.topology import CUSTOMER_PROVISIONED_QUEUE, USER_CREATED_QUEUE
from stripe_emulator.customers import Customers
from stripe_emulator.keys import KeyState
from stripe_emulator.running import DEFAULT_KEY
from support.commands import on_a_terminal
from support.databases import empty_database
from support.leak_check import leaks, secrets_in
from support.vhost import Vhost
from support.waiting import eventually

from .conftest import Bench, Stripe, start, user
from .subscribing import PLANS, subscription


@dataclass(frozen=True)
class Command:
    """The program, with the service's settings."""

    environment: dict[str, str]

    async def run(self, *arguments: str, given: str = "") -> tuple[int, str, str]:
        """Run it to its end; return exit code, standard output and standard error."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "customer_provisioner",
            *arguments,
            env=self.environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate(given.encode())
        assert leaks({"output": (out + err).decode()}, secrets_in(self.environment)) == []
        return process.returncode or 0, out.decode(), err.decode()


QUERY = "SELECT user_id, email, name, stripe_customer_id FROM user_profiles;"


@pytest.fixture
def platform_url(postgres: PostgresServer, password: str) -> Iterator[str]:
    """Return the URL of a platform's database, with a table of users as Supabase's."""
    owner = "customer_provisioner_owner"
    with empty_database(postgres, "platform", options=f"OWNER {owner}") as name:
        url = postgres.url(name, owner, password)
        columns = "user_id uuid PRIMARY KEY, email text, name text, stripe_customer_id text"
        run_sql(url, f"CREATE TABLE user_profiles ({columns})")
        yield url


@pytest.fixture
def command(environment: dict[str, str]) -> Command:
    """Return the program."""
    return Command(environment)


async def provisioned_user(bench: Bench) -> UserCreated:
    """Return a user that has a customer."""
    data = user()
    await bench.keep(data)
    await bench.provisioner.provision(data.user_id)
    return data


async def customer_of(database: Database, user_id: UUID) -> str | None:
    """Return the customer of a user."""
    profile = await ProfileReader(database).find(user_id)
    return profile.stripe_customer_id if profile else None


async def test_check_prints_ok_for_each_part(command: Command) -> None:
    """Settings, broker, database, and whether Stripe accepts the key."""
    code, out, err = await command.run("check")

    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "settings: ok",
        "broker: ok",
        f"topology: {NOT_COMPARED}",
        "database: ok",
        "stripe: ok",
        f"subscriptions: {NOT_FOLLOWED}",
        f"plans: {NO_PLANS}",
        "plans in use: ok",
    ]


@pytest.mark.parametrize("file", [None, "gone: {display_name: Gone}", "team: {display_name: T}"])
async def test_a_plan_file_that_lacks_a_plan_in_use_is_refused(
    command: Command, bench: Bench, database: Database, tmp_path: Path, file: str | None
) -> None:
    """By `check` and at the start: the sweep would put the plan's accounts on no plan."""
    store = SubscriptionStore(database)
    fetched = subscription("sub_1", "cus_1")
    marked = replace(fetched.items[0], lookup_key=None, price_metadata={"plan_type": "team"})
    fetched = replace(fetched, items=(marked,))
    await store.store(after_fetch(None, fetched, PLANS, bench.clock()), expected=0)
    if file is not None:
        path = tmp_path / "plans.yaml"
        head = "version: 1\nunknown_users: deny\nwithout_subscription: deny\nplans:\n  "
        path.write_text(head + file, encoding="utf-8")
        command.environment["PLANS_FILE"] = str(path)

    code, out, _ = await command.run("check")

    if file is not None and file.startswith("team"):
        assert (code, out.splitlines()[-1]) == (0, "plans in use: ok")
        return
    assert code == 1
    assert "and subscriptions that have not ended are for team (1)" in out.splitlines()[-1]
    code, _, err = await asyncio.wait_for(command.run("serve"), 60)
    assert code == 2
    assert "settings: PLANS_FILE: " in err


async def test_check_names_a_key_that_stripe_refuses(command: Command, stripe: Stripe) -> None:
    """Exit code 1, and the line says what is wrong without the key."""
    stripe.account.keys.put(DEFAULT_KEY, KeyState.REVOKED)

    code, out, _ = await command.run("check")

    assert code == 1
    assert "stripe: status 401" in out
    assert DEFAULT_KEY not in out


async def test_a_backfill_without_execute_only_counts(
    command: Command, bench: Bench, vhost: Vhost
) -> None:
    """It prints how many have a customer and how many do not, and which entries are unusable."""
    known, fresh = await provisioned_user(bench), user()
    lines = [known.model_dump_json(), "", fresh.model_dump_json(), '{"email": "secret"}']

    code, out, err = await command.run("backfill", given="\n".join(lines))

    assert code == 1
    assert out.startswith("3 read: 1 without a customer, 1 with one, 0 refused by Stripe before")
    assert "add --execute" in out
    assert "entry 3: user_id: is missing; email: must be an e-mail address" in err
    assert "secret" not in out + err
    assert await vhost.depth(USER_CREATED_QUEUE) == 0


async def test_a_backfill_publishes_users_without_a_customer(
    command: Command, bench: Bench, vhost: Vhost, tmp_path: Path
) -> None:
    """From CSV, at the given rate; a user that has a customer is skipped."""
    known, fresh = await provisioned_user(bench), user(name="Ada")
    table = tmp_path / "users.csv"
    rows = [f"{each.user_id},{each.email},{each.name or ''},x" for each in (known, fresh)]
    table.write_text("\n".join(["user_id,email,name,plan", *rows]), encoding="utf-8")

    code, out, _ = await command.run("backfill", str(table), "--execute", "--throttle", "50")

    (message,) = await vhost.peek(USER_CREATED_QUEUE)
    assert (code, out[:7]) == (0, "2 read:")
    assert read_event(message.body, [UserCreated]).data == fresh


async def test_a_backfill_links_the_customers_that_a_list_names(
    command: Command, bench: Bench, vhost: Vhost
) -> None:
    """And names a user who has another customer than the list says."""
    known, fresh = await provisioned_user(bench), user()
    rows = [f"{known.user_id},{known.email},cus_other", f"{fresh.user_id},,cus_own"]
    table = "\n".join(["user_id,email,stripe_customer_id", *rows])

    code, out, err = await command.run("backfill", "--execute", given=table)

    (message,) = await vhost.peek(USER_CREATED_QUEUE)
    published = read_event(message.body, [UserCreatedV2]).data
    assert code == 1
    assert "1 with another than listed" in out
    assert f"user {known.user_id} has the customer cus_" in err
    assert published == UserCreatedV2(user_id=fresh.user_id, stripe_customer_id="cus_own")


async def test_a_backfill_reads_from_a_database(
    command: Command, bench: Bench, vhost: Vhost, platform_url: str
) -> None:
    """A user who has a customer is skipped, and an unusable row is named by its user."""
    known, fresh = await provisioned_user(bench), user(name="Ada")
    rows = (
        f"('{known.user_id}', '{known.email}', NULL, NULL)",
        f"('{fresh.user_id}', '{fresh.email}', 'Ada', NULL)",
        f"('{uuid4()}', 'secret', '', NULL)",
    )
    run_sql(platform_url, f"INSERT INTO user_profiles VALUES {', '.join(rows)}")  # noqa: S608 - a test's own
    command.environment["SOURCE_DATABASE_URL"] = platform_url

    code, out, err = await command.run("backfill", "--execute", "--from-database", QUERY)

    (message,) = await vhost.peek(USER_CREATED_QUEUE)
    assert code == 1
    assert out.startswith("3 read: 1 without a customer, 1 with one")
    assert "email: must be an e-mail address" in err
    assert "secret" not in out + err
    assert read_event(message.body, [UserCreated]).data == fresh


async def rows_of(url: str, query: str) -> tuple[int, list[UserCreatedV2 | UnusableEntry]]:
    """Return how many rows a query has, and what is read from them."""
    async with source_database(url, query) as source:
        return await source.count(), [entry async for entry in source.users()]


async def test_a_database_is_read_page_by_page(platform_url: str) -> None:
    """Each user once, in the order of the ids."""
    run_sql(
        platform_url,
        "INSERT INTO user_profiles SELECT gen_random_uuid(), i || '@example.com'"
        " FROM generate_series(1, 1100) AS i",
    )

    number, users = await rows_of(platform_url, QUERY)

    ids = [entry.user_id for entry in users if isinstance(entry, UserCreatedV2)]
    assert number == len(set(ids)) == 1100
    assert ids == sorted(ids)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("DELETE FROM user_profiles", "the source database"),
        ("WITH gone AS (DELETE FROM user_profiles RETURNING *) SELECT * FROM gone", "the source"),
        ("SELECT 1 AS user_id, '' AS email", "user_id, of type uuid"),
        ("SELECT gen_random_uuid() AS user_id", "the query has no column email"),
        ("SELECT user_id, email FROM user_profiles WHERE false", "no rows"),
        ("SELECT NULL::uuid AS user_id, 'secret' AS email", "1 of the query's rows have no"),
        ("SELECT 'secret'::uuid AS user_id, '' AS email", "(22P02)"),
    ],
)
async def test_another_query_is_refused_without_a_value(
    platform_url: str, query: str, text: str
) -> None:
    """It reads only, and an error about a row does not quote it."""
    with pytest.raises(UnreadableListError) as refusal:
        await rows_of(platform_url, query)

    assert text in str(refusal.value)
    assert "secret" not in str(refusal.value)


async def test_a_source_that_is_away_is_refused_without_its_password() -> None:
    """The URL has it."""
    url = f"postgresql://role:hidden@{LOOPBACK}:1/platform"

    with pytest.raises(UnreadableListError, match="can't be read") as refusal:
        await rows_of(url, QUERY)

    assert "hidden" not in str(refusal.value)


async def test_a_backfill_from_a_database_needs_its_url(command: Command) -> None:
    """From the environment: a command line is seen by everyone on the machine."""
    code, _, err = await command.run("backfill", "--from-database", "SELECT 1")

    assert code == 2
    assert "SOURCE_DATABASE_URL: not set" in err


async def test_an_operator_links_and_replaces_a_customer(
    command: Command, bench: Bench, database: Database
) -> None:
    """An unknown user is linked; another customer needs --replace, and is a new generation."""
    account, user_id = bench.stripe.account, uuid4()
    own, other = (account.customers.create({}, account.clock.now())["id"] for _ in range(2))

    linked = await command.run("link", str(user_id), own)
    refused = await command.run("link", str(user_id), other)
    replaced = await command.run("link", str(user_id), other, "--replace")

    assert [each[0] for each in (linked, refused, replaced)] == [0, 1, 0]
    assert f"the user has the customer {own}; --replace bills another" in refused[2]
    profile = await ProfileReader(database).find(user_id)
    assert profile is not None
    assert (profile.stripe_customer_id, profile.generation) == (other, 2)


async def test_a_refused_link_is_given_up_by_reprovision(
    command: Command, bench: Bench, database: Database
) -> None:
    """The running service then creates a customer."""
    data = UserCreatedV2(user_id=uuid4(), stripe_customer_id="cus_missing")
    await bench.keep(data)
    with pytest.raises(LinkRefusedError):
        await bench.provisioner.provision(data.user_id)

    code, out, _ = await command.run("reprovision", str(data.user_id))
    await sweep(ProfileReader(database), bench.provisioner, bench.metrics, utc_now)

    (customer,) = bench.stripe.customers(data.user_id)
    assert (code, out[:26]) == (0, "cus_missing is not linked ")
    assert await customer_of(database, data.user_id) == customer["id"]


async def test_announce_with_execute_publishes_the_same_events_again(
    command: Command, bench: Bench, database: Database, vhost: Vhost
) -> None:
    """Those since a time, equal to the last byte, whether published before or not."""
    earlier, later = await provisioned_user(bench), await provisioned_user(bench)
    await bench.keep(user())
    profiles = {each: await ProfileReader(database).find(each.user_id) for each in (earlier, later)}
    since = profiles[later]
    assert since is not None
    assert since.provisioned_at is not None
    arguments = ("announce", "--since", since.provisioned_at.isoformat())
    none = "0 assignments, 0 subscriptions and 0 readings of all subscriptions"

    dry = await command.run(*arguments)
    assert await vhost.depth(CUSTOMER_PROVISIONED_QUEUE) == 0
    done = await command.run(*arguments, "--execute")
    everyone = await command.run("announce", "--since", "2020-01-01T00:00Z", "--execute")

    assert dry[:2] == (
        0,
        f"1 customers, {none} would be announced again; nothing was: add --execute\n",
    )
    assert done[:2] == (0, f"1 customers, {none} were announced again\n")
    assert everyone[:2] == (0, f"2 customers, {none} were announced again\n")
    published = [message.body for message in await vhost.peek(CUSTOMER_PROVISIONED_QUEUE)]
    bodies = [announcement(each).body() for each in profiles.values() if each is not None]
    assert published[0] == bodies[1]
    assert sorted(published[1:]) == sorted(bodies)


async def test_a_backfill_on_a_terminal_shows_its_progress(
    environment: dict[str, str], vhost: Vhost, tmp_path: Path
) -> None:
    """Of the whole list; unusable entries are named above the bar."""
    lines = tmp_path / "users.jsonl"
    written = [user().model_dump_json(), '{"email": "secret"}', user().model_dump_json()]
    lines.write_text("\n".join(written), encoding="utf-8")

    shown = await on_a_terminal(
        "customer_provisioner", "backfill", str(lines), "--execute", **environment
    )

    assert shown.code == 1
    assert "3/3" in shown.text
    assert "entry 2: user_id: is missing" in shown.text
    assert "secret" not in shown.text
    assert await vhost.depth(USER_CREATED_QUEUE) == 2


async def test_users_are_found_by_exact_address_only(command: Command, bench: Bench) -> None:
    """The output has ids and no addresses."""
    data = await provisioned_user(bench)
    await provisioned_user(bench)
    (customer,) = bench.stripe.customers(data.user_id)

    found = await command.run("find", data.email)
    none = await command.run("find", "other@example.com")

    assert found == (0, f"{data.user_id} provisioned {customer['id']}\n", "")
    assert (none[0], none[1]) == (1, "")
    assert "no user has exactly this address" in none[2]


async def test_a_user_is_explained_without_the_address(command: Command, bench: Bench) -> None:
    """Every step in order, and the next one."""
    data = await provisioned_user(bench)

    code, out, _ = await command.run("explain", str(data.user_id))

    steps = [line.split()[3] for line in out.splitlines() if " generation 1 " in line]
    assert code == 0
    assert steps == ["kept", "create_sent", "created"]
    assert "next: the service announces the customer within seconds" in out
    assert data.email not in out


async def test_a_deleted_customer_is_replaced_as_the_next_generation(
    command: Command, service: ServerProcess, bench: Bench, database: Database, vhost: Vhost
) -> None:
    """The command begins the generation; the running service creates and announces the customer."""
    data = await provisioned_user(bench)
    (former,) = bench.stripe.customers(data.user_id)
    bench.stripe.delete(former["id"])
    await start(service)

    code, out, _ = await command.run("reprovision", str(data.user_id))

    now = await eventually(
        lambda: customer_of(database, data.user_id), lambda found: found not in {None, former["id"]}
    )
    (customer,) = bench.stripe.customers(data.user_id)
    messages = await eventually(
        lambda: vhost.peek(CUSTOMER_PROVISIONED_QUEUE), lambda found: len(found) == 2
    )
    generations = [json.loads(message.body)["data"]["generation"] for message in messages]
    assert (code, out[:23]) == (0, "generation 2 has begun;")
    assert now == customer["id"]
    assert sorted(generations) == [1, 2]


async def test_an_existing_customer_is_not_replaced(
    command: Command, bench: Bench, database: Database
) -> None:
    """Two customers of one user would both be billed."""
    data = await provisioned_user(bench)
    (customer,) = bench.stripe.customers(data.user_id)

    code, _, err = await command.run("reprovision", str(data.user_id))

    assert code == 1
    assert "exists at Stripe" in err
    assert await customer_of(database, data.user_id) == customer["id"]


async def test_a_customer_unknown_to_stripe_needs_missing_to_be_replaced(
    command: Command, bench: Bench, database: Database
) -> None:
    """Without it a 404 may mean that the key is of another account."""
    data = await provisioned_user(bench)
    bench.stripe.account.customers = Customers()  # another account, without customers

    without, _, err = await command.run("reprovision", str(data.user_id))
    with_missing, _, _ = await command.run("reprovision", str(data.user_id), "--missing")

    assert (without, with_missing) == (1, 0)
    assert "is this the key of the account" in err
    assert await customer_of(database, data.user_id) is None


async def test_an_unknown_user_is_reported(command: Command) -> None:
    """By both commands, with exit code 1."""
    explained = await command.run("explain", str(uuid4()))
    replaced = await command.run("reprovision", str(uuid4()))

    assert (explained[0], replaced[0]) == (1, 1)
    assert "no such user" in explained[2]
    assert "no customer" in replaced[2]
