"""The commands, with the project's own services."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import Request, urlopen
from uuid import uuid4

import aio_pika
import pytest

from local_stack.guide import QUERIES
from local_stack.identities import ProcessIdentity, await_exit
from local_stack.loopback import answers, fetch
from local_stack.record import Record
from local_stack.sample_dead_letter import DEAD_LETTER_QUEUE, QUEUE
from local_stack.sql import SqlFailedError, run_sql
from local_stack.urls import Address, Login
from local_stack.usage_page import MODULE


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where one stack lives, taken down at the end whatever a test did."""
    path = tmp_path_factory.mktemp("stack") / "up"
    yield path
    local_stack(path, "down")


@pytest.fixture
def component(tmp_path: Path) -> Path:
    """A component with a page, as far as a server sees it."""
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo/index.html").touch()
    (tmp_path / MODULE).touch()
    return tmp_path


def test_up_returns_when_every_part_is_ready(directory: Path, component: Path) -> None:
    """One command starts everything in the background and prints the addresses."""
    up = local_stack(directory, "up", "--tier-scale", "0.01", "--component", str(component))

    assert up.returncode == 0, up.stdout
    addresses = re.findall(r"http://\S+/(?:metrics|readyz|sums|graph|alerts)", up.stdout)
    assert [url for url in addresses if not answers(url)] == []
    assert len(addresses) == 12
    assert re.search(r" METERING_URL=http://127\.0\.0\.1:\d+ METERING_KEY=\S+\n", up.stdout)
    assert not running(directory).dead


def test_demo_users_read_their_usage_from_the_page(directory: Path) -> None:
    """The page's tokens open the usage API from the page's origin, each for its user alone."""
    addresses = dict(running(directory).addresses)
    page = addresses["usage page"].removesuffix("/index.html")
    host = json.loads(fetch(f"{page}/host.json"))
    plans = {}
    for user in host["users"]:
        answer = fetch(f"{page}/token?user={user['id']}", method="POST")
        headers = {
            "Authorization": f"Bearer {json.loads(answer)['token']}",
            "Origin": page.removesuffix("/demo"),
        }
        url = f"{host['usage_api']}/v1/entitlements/{user['id']}"
        request = Request(url, headers=headers)  # noqa: S310 - only http
        with urlopen(request) as found:  # noqa: S310 - only http
            assert found.headers["Access-Control-Allow-Origin"] == headers["Origin"]
            entitlements = json.load(found)
        plans[user["name"].split()[0]] = (entitlements["plan"], entitlements["seats"])

    assert plans == {
        "Ada": ("free", None),
        "Grace": ("pro", None),
        "Linus": ("enterprise", 5),
        "Margaret": ("enterprise", 5),
    }


def test_prometheus_scrapes_every_part_and_answers_the_printed_queries(directory: Path) -> None:
    """Each printed query has a result, and all servers are scraped."""
    record = running(directory)
    prometheus = dict(record.addresses)["Prometheus"].partition("/graph")[0]

    def answered(query: str) -> bool:
        found = json.loads(fetch(f"{prometheus}/api/v1/query?{urlencode({'query': query})}"))
        return bool(found["data"]["result"])

    deadline = time.monotonic() + 60
    wanted = {"count(up == 1) == 8", *QUERIES.values()}
    while (missing := {each for each in wanted if not answered(each)}) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.5)
    assert missing == set()
    assert all(query in record.page() for query in QUERIES.values())


def test_a_second_up_is_refused_in_one_line(directory: Path) -> None:
    """The running stack is not affected."""
    again = local_stack(directory, "up")

    assert again.returncode == 1
    assert re.fullmatch(r"a stack is running here already, as process \d+; .*\n", again.stdout)
    assert local_stack(directory, "status").returncode == 0


def test_a_run_published_by_hand_reaches_stripe(directory: Path) -> None:
    """A user and a run become a sum at Stripe."""
    published = local_stack(directory, "publish")

    assert published.returncode == 0, published.stdout
    (sums,) = re.findall(r"http://\S+", published.stdout)
    user = published.stdout.partition(" of user ")[2].split()[0]
    assert f"the usage page, loaded again, has them as User {user}" in published.stdout
    ledger = dict(running(directory).addresses)["usage-ingest's database"]

    def counted() -> list[float]:
        rows = run_sql(ledger, "SELECT user_id, stripe_customer_id FROM billing_accounts")
        customer = dict(row.split("|") for row in rows.splitlines()).get(user)
        return [row["value"] for row in json.loads(fetch(sums)) if row["customer"] == customer]

    deadline = time.monotonic() + 60
    while counted() != [1] and time.monotonic() < deadline:
        time.sleep(0.1)
    assert counted() == [1]


def test_operators_commands_run_with_the_settings_of_the_stack(directory: Path) -> None:
    """Each has what it needs, and its exit code is the command's."""
    status = local_stack(directory, "run", "usage-ingest", "status", "--json")
    plans = local_stack(directory, "run", "customer-provisioner", "plans", "ensure")
    topology = local_stack(directory, "run", "nexus-topology", "check", "--tier-scale", "0.01")
    unknown = local_stack(directory, "run", "usage-ingest", "explain", str(uuid4()))

    assert json.loads(status.stdout)["connected"]
    assert plans.returncode == 0, plans.stdout
    assert "nothing to do (test mode)" in plans.stdout
    assert topology.returncode == 0, topology.stdout
    assert unknown.returncode == 1
    assert "is not in the ledger" in unknown.stdout


def test_stripes_sums_are_compared_within_minutes(directory: Path) -> None:
    """Reading and comparing wait for the same time, which is no hour as at the real Stripe."""
    commands = running(directory).commands
    services = ("usage-ingest", "stripe-reporter")
    lags = {commands[service].get("STRIPE_SUMMARY_LAG_SECONDS") for service in services}

    assert len(lags) == 1
    assert int(lags.pop() or 3600) < 60


async def test_one_dead_letter_is_there_to_practise_on(directory: Path) -> None:
    """usage-ingest dead-lettered it, and its headers name the queue to move it to."""
    record = running(directory)
    operator = Login(*dict(record.addresses)["management UI"].split("  ")[1].split(" / "))
    url = Address.of(record.publish_to).amqp_url(operator, "metering")

    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        queue = await channel.get_queue(DEAD_LETTER_QUEUE, ensure=False)
        letter = await queue.get()
        nothing_more = await queue.get(fail=False)

    assert letter is not None
    assert nothing_more is None
    assert letter.headers["nexus-reason"] == "timestamp_in_future"
    assert letter.headers["nexus-requeue-to"] == QUEUE
    assert DEAD_LETTER_QUEUE in record.page()


def test_a_service_may_use_its_own_database_only(directory: Path) -> None:
    """A leaked password of one service opens no other service's database."""
    urls = dict(running(directory).addresses)
    own = urls["usage-ingest's database"]
    other = own.removesuffix("usage_ingest") + "stripe_reporter"

    assert run_sql(own, "SELECT current_user") == "usage_ingest\n"
    with pytest.raises(SqlFailedError, match="permission denied"):
        run_sql(other, "SELECT 1")


def test_status_names_a_part_that_died(directory: Path) -> None:
    """The status shows a part that crashed in the background."""
    running(directory).processes["usage-ingest"].send(signal.SIGKILL)

    status = local_stack(directory, "status")

    assert status.returncode == 1
    assert "usage-ingest has died" in status.stdout


def test_down_ends_every_process(directory: Path) -> None:
    """After ``down`` none of them runs."""
    processes = running(directory).processes.values()
    assert {"prometheus", "postgres-exporter"} < running(directory).processes.keys()

    down = local_stack(directory, "down")

    assert down.returncode == 0
    assert not any(process.alive for process in processes)
    assert local_stack(directory, "status").stdout == "no stack is running here\n"
    for arguments in (["publish"], ["run", "usage-ingest", "status"]):
        assert "no stack is running here" in local_stack(directory, *arguments).stdout


@pytest.mark.long
def test_what_a_killed_supervisor_left_is_ended(directory: Path) -> None:
    """The next command ends the servers that a killed supervisor left."""
    up = local_stack(directory, "up", "--component", str(directory))
    assert up.returncode == 0
    assert "going on without the usage page: no nexus-usage.js in" in up.stdout
    processes = list(running(directory).processes.values())
    supervisor = ProcessIdentity.of(int((directory / "lock").read_text(encoding="utf-8")))
    assert supervisor is not None
    supervisor.send(signal.SIGKILL)
    await_exit([supervisor], seconds=10)
    assert all(process.alive for process in processes)

    down = local_stack(directory, "down")

    assert down.stdout == "no stack is running here\n"
    assert await_exit(processes, seconds=10)


def running(directory: Path) -> Record:
    """Read the record of the running stack."""
    record = Record.read(directory)
    assert record is not None
    return record


def local_stack(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return subprocess.run(
        [sys.executable, "-m", "local_stack", "--directory", directory, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=180,
    )
