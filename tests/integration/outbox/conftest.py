"""A host's database with users of its own, as a Supabase-like project has them, and the outbox."""

import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from local_stack.catalogue import base_environment
from local_stack.ports import LOOPBACK, free_ports
from local_stack.server_process import ServerProcess
from local_stack.servers import Database as Server
from local_stack.sql import run_sql
from nexus_database import Database
from nexus_messaging.topology import TOOL_EXECUTED_QUEUE
from nexus_outbox.installation import sql_file
from nexus_outbox.storage import Outbox
from support.databases import empty_database, make_role
from support.vhost import Vhost

ROLES = ("host_owner", "signup", "hub", "outbox_loop")

HOST = """
CREATE SCHEMA auth;
CREATE TABLE auth.users (id uuid PRIMARY KEY, email text, raw_user_meta_data jsonb);
GRANT USAGE ON SCHEMA auth TO signup;
GRANT INSERT ON auth.users TO signup;
CREATE TABLE runs (run_id uuid PRIMARY KEY);
GRANT INSERT ON runs TO hub;
"""

SET_UP = """
SELECT metering.watch_users('auth.users', name_path => '{raw_user_meta_data,full_name}');
SELECT metering.admit_caller('hub');
SELECT metering.admit_loop('outbox_loop');
"""


@dataclass(frozen=True)
class Host:
    """The database of a host. ``signup`` may insert users, ``hub`` runs, and neither anything else.

    ``host_owner`` owns all tables and is no superuser.
    """

    server: Server
    name: str
    password: str

    def url(self, role: str) -> str:
        """Return the URL of a role."""
        return self.server.url(self.name, role, self.password)

    def sql(self, statement: str, role: str = "host_owner") -> str:
        """Run statements as a role; return the rows, one a line."""
        return run_sql(self.url(role), statement).strip()

    def sign_up(self, email: str | None = "ada@example.com", name: str | None = None) -> UUID:
        """Insert a user as the only role that may."""
        user = uuid4()
        facts = "NULL" if name is None else f"jsonb_build_object('full_name', $n${name}$n$)"
        address = "NULL" if email is None else f"$e${email}$e$"
        values = f"'{user}', {address}, {facts}"
        self.sql(f"INSERT INTO auth.users VALUES ({values})", "signup")  # noqa: S608 - a test's own
        return user

    def run_tool(self, user: UUID | None = None, more: str = "") -> UUID:
        """Call ``metering.tool_executed`` as the hub; return the event's id."""
        call = f"metering.tool_executed('{user or uuid4()}', 'weather', 'forecast', 'hub'{more})"
        return UUID(self.sql(f"SELECT {call}", "hub"))

    def run_tools(self, number: int) -> None:
        """Write the events of many runs in one statement."""
        call = "metering.tool_executed(gen_random_uuid(), 'weather', 'forecast', 'hub')"
        self.sql(" ".join(("SELECT", call, f"FROM generate_series(1, {number})")), "hub")

    def waiting(self) -> int:
        """Count the events that wait."""
        return int(self.sql("SELECT waiting FROM metering.status"))


@pytest.fixture(scope="session")
def host_owner(postgres: Server, password: str) -> str:
    """Make the host's roles; return the one that owns its tables."""
    for role in ROLES:
        make_role(postgres, role, password)
    return ROLES[0]


@pytest.fixture
def bare_host(postgres: Server, password: str, host_owner: str) -> Iterator[Host]:
    """Return a host without the outbox."""
    with empty_database(postgres, "host", options=f"OWNER {host_owner}") as name:
        made = Host(postgres, name, password)
        made.sql(HOST)
        yield made


@pytest.fixture
def host(bare_host: Host) -> Host:
    """Return a host with the outbox installed and its users watched."""
    bare_host.sql(sql_file("install"))
    bare_host.sql(SET_UP)
    return bare_host


@pytest.fixture
async def outbox(host: Host) -> AsyncIterator[Outbox]:
    """Return the outbox as the loop's role sees it."""
    async with Database(host.url("outbox_loop"), name="test") as database:
        yield Outbox(database)


def outbox_process(
    host: Host, vhost: Vhost, directory: Path, number: int = 1, **more: str
) -> ServerProcess:
    """Return a process of nexus-outbox that publishes from ``host`` to ``vhost``."""
    [port] = free_ports(None)
    settings = {
        "DATABASE_URL": host.url("outbox_loop"),
        "AMQP_URL": vhost.url("publisher"),
        "HTTP_PORT": str(port),
    }
    return ServerProcess(
        f"nexus-outbox {number}",
        (sys.executable, "-m", "nexus_outbox", "serve"),
        url=f"http://{LOOPBACK}:{port}",
        ready_path="/readyz",
        log=directory / f"nexus-outbox-{number}.log",
        env={**base_environment(), **settings, **more},
        grace=25,
    )


async def published(vhost: Vhost, queue: str = TOOL_EXECUTED_QUEUE) -> list[str]:
    """Take all messages of ``queue``; return their ids, sorted."""
    found: list[str] = []
    async with vhost.channel() as channel:
        declared = await channel.get_queue(queue)
        count = declared.declaration_result.message_count or 0
        async with declared.iterator(no_ack=True, timeout=20) as messages:
            while len(found) < count:
                found.append(str((await anext(messages)).message_id))
    return sorted(found)
