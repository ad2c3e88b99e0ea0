"""The rights that each database role lacks, in databases made and migrated as in production."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import text

from local_stack.databases import ServiceDatabase, create_databases
from local_stack.postgres import PostgresServer
from local_stack.sql import run_sql
from local_stack.urls import Login
from nexus_database import Database, DatabaseUnavailableError, RowRefusedError, migrate

REFUSED = "SQLSTATE 42501"
CHANGE = "UPDATE {} SET {} = DEFAULT"

CHANGEABLE = {
    "customer_provisioner": {
        "account_assignments": "announced_at",
        "subscription_sweep": "after_id announced_at due_at first_at previous_at read_until"
        " started_at unread",
        "subscriptions": "account_id announced_at announced_revision as_of cancel_at ended_at items"
        " period_end period_start plan_since plan_type revision seats status stripe_customer_id"
        " trial_end",
        "user_profiles": "announced_generation attempts call_started_at claimed_until"
        " create_request deleted_customer_id due_at email generation key_n key_spent last_fault"
        " link_to name provisioned_at refused_as state stripe_customer_id traceparent updated_at",
        "user_changes": "claimed_until due_at email email_as_of last_fault name name_as_of"
        " refused_as revision waiting_since",
    },
    "usage_ingest": {
        "account_assignments": "released seen_at",
        "account_plans": "account_id plan_type since",
        "account_subscriptions": "account_id as_of cancel_at ended_at items period_end period_start"
        " plan_type revision seats status stripe_customer_id subscription_id trial_end",
        "billing_accounts": "generation released seen_at stripe_customer_id updated_at user_id",
        "counted_hours": "as_of hour lagging meter stripe_customer_id value",
        "counted_pairs": "as_of meter stripe_customer_id",
        "differences": "at_most closed_at counted expected first_seen hour kind last_seen meter"
        " settled_at settlement stripe_customer_id",
        "folded_amounts": "account_id hour meter value",
        "folded_usage": "billable_runs hour runs server_id tokens tool_name user_id",
        "late_readings": "billing_state claim_id",
        "placements_due": "queued_at",
        "report_placements": "account_id answered_at meter occurred_at placement report_id value",
        "subscription_periods": "ended_early meters period_end",
        "subscription_plans": "plan_type since subscription_id",
        "subscriptions_read": "began_at single",
        "totals_progress": "as_of part",
        "touched_amounts": "account_id hour leased_until meter touched_at",
        "unpriced_runs": "state",
        "usage_events": "billing_state claim_id",
        "usage_reports": "answered_at ever_unknown forwarded_at leased_until reason state",
    },
    "stripe_reporter": {
        "late_rejections": "announced_at verdict",
        "meter_calls": "accepted_key_n answer answered_at attempts first_unknown_at key_n reason"
        " rejected_later rejected_later_at request_digest started_at state",
        "summaries_due": "active_at meter next_try read_at renewed_at since since_before"
        " stripe_customer_id wanted_at",
        "summaries_place": "answered_at identifier single",
    },
}
"""The columns that each service's role may change; every other column is a fact."""

DERIVED = {
    "usage_ingest": (
        *("account_plans", "subscription_plans"),
        *("amount_deltas", "usage_deltas", "touched_amounts"),
        *("counted_hours", "placements_due", "report_placements"),
    ),
    "stripe_reporter": ("summaries_due",),
}
"""Tables whose rows a service may delete: each is made again from what it may not."""

SERVICES = tuple(CHANGEABLE)


@dataclass(frozen=True)
class Databases:
    """Every service's database on one server, with logins as in production."""

    server: PostgresServer
    by_service: dict[str, ServiceDatabase]

    def columns(self, service: str) -> list[tuple[str, str]]:
        """Return every table and column of a service."""
        rows = run_sql(
            self._url(service, self.by_service[service].owner),
            "SELECT table_name || ' ' || column_name FROM information_schema.columns"
            " JOIN information_schema.tables USING (table_schema, table_name)"
            " WHERE table_schema = 'public' AND table_type = 'BASE TABLE'",
        )
        return [(table, column) for table, column in map(str.split, rows.splitlines())]

    async def run(self, database: str, statement: str, login: Login | None = None) -> None:
        """Run a statement in a database, as its service unless another ``login`` is given."""
        login = login or self.by_service[database].service
        connection = Database(self._url(database, login), name="test", pool_size=1)
        try:
            await connection.run(lambda c: c.execute(text(statement)))
        finally:
            await connection.close()

    async def refuses(self, database: str, statement: str) -> bool:
        """Return whether the service lacks the right; any other fault is raised.

        With the right, a row may refuse the value.
        """
        try:
            await self.run(database, statement)
        except RowRefusedError:
            return False
        except DatabaseUnavailableError as error:
            if REFUSED not in str(error):
                raise
            return True
        return False

    def _url(self, database: str, login: Login) -> str:
        return self.server.url(database, login.user, login.password)


@pytest.fixture(scope="module")
def databases(server_directory: Path) -> Iterator[Databases]:
    """Run a server of its own, because the passwords of the run's roles would change."""
    with PostgresServer.start(server_directory / "least-privilege", durable=False) as server:
        made_for = create_databases(server.superuser_url, SERVICES)
        for name, made in made_for.items():
            url = server.url(name, made.owner.user, made.owner.password)
            asyncio.run(migrate(url, name))
        yield Databases(server, made_for)


@pytest.mark.parametrize("service", SERVICES)
async def test_service_changes_only_its_listed_columns(databases: Databases, service: str) -> None:
    """Each column is tried; a new one counts as a fact until it is listed here."""
    changeable: dict[str, list[str]] = {}
    for table, column in sorted(databases.columns(service)):
        if not await databases.refuses(service, CHANGE.format(table, column)):
            changeable.setdefault(table, []).append(column)

    assert {table: " ".join(names) for table, names in changeable.items()} == CHANGEABLE[service]


@pytest.mark.parametrize("service", SERVICES)
async def test_service_removes_no_facts_and_owns_nothing(
    databases: Databases, service: str
) -> None:
    """It can neither delete facts, nor change tables, nor gain rights."""
    tables = {table for table, _ in databases.columns(service)}
    assert len(tables) > 1
    statements = [
        form.format(table)
        for table in sorted(tables)
        for form in (
            *("DELETE FROM {}", "TRUNCATE {}", "DROP TABLE {}", "ALTER TABLE {} ADD x integer"),
            *("ALTER TABLE {} DISABLE TRIGGER ALL", "CREATE INDEX ON {} ((1))"),
        )
    ]
    statements += [
        "INSERT INTO alembic_version VALUES ('0000')",
        "CREATE TABLE theirs (x integer)",
        "CREATE SCHEMA theirs",
        "CREATE ROLE theirs",
        f"SET ROLE {service}_owner",
        "SET session_replication_role = replica",
        "SELECT pg_read_file('/etc/hostname')",
        "COPY alembic_version TO PROGRAM 'cat'",
    ]

    allowed = [each for each in statements if not await databases.refuses(service, each)]

    assert allowed == list(map("DELETE FROM {}".format, sorted(DERIVED.get(service, ()))))


@pytest.mark.parametrize("service", SERVICES)
async def test_role_is_refused_by_another_services_database(
    databases: Databases, service: str
) -> None:
    """Both the services' roles and the owners'; a service's own two roles connect."""
    for name, other in databases.by_service.items():
        for login in (other.service, other.owner):
            if name == service:
                await databases.run(service, "SELECT 1", login)
            else:
                with pytest.raises(DatabaseUnavailableError, match=REFUSED):
                    await databases.run(service, "SELECT 1", login)
