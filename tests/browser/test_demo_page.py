"""The page that ``make up`` prints the address of, in a browser, with its demo users."""

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

from browser.chromium import chromium
from browser.usage_page import UsagePage
from local_stack.record import Record
from local_stack.sql import run_sql
from support.node import build_component

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

UP_SECONDS = 300
SETTLED_SECONDS = 150
UNSETTLED = """
SELECT (SELECT count(*) FROM usage_events WHERE billing_state = 'due')
     + (SELECT count(*) FROM usage_reports WHERE state IN ('pending', 'forwarded'))
     + (SELECT count(*) = 0 FROM usage_reports)::int
"""
ENTERPRISE = "Enterprise plan · active"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UsagePage]:
    """The page of a stack of its own, in a browser."""
    folder = tmp_path_factory.mktemp("demo-page")
    build_component(folder / "component")
    command = [sys.executable, "-m", "local_stack", "--directory", str(folder / "up")]
    up = [*command, "up", "--component", str(folder / "component")]
    try:
        subprocess.run(up, check=True, timeout=UP_SECONDS)
        record = Record.read(folder / "up")
        assert record is not None
        settle(dict(record.addresses)["usage-ingest's database"])
        address = dict(record.addresses)["usage page"].removesuffix("/demo/index.html")
        with chromium(folder / "profile") as browser:
            browser.set_script_timeout(30)
            yield UsagePage(browser, address)
    finally:
        subprocess.run([*command, "down"], check=True, timeout=UP_SECONDS)


@pytest.mark.parametrize(
    ("user", "plan", "runs", "picture"),
    [
        ("Ada", "Free plan", ["weather", "search"], "usage-demo-limit"),
        ("Grace", "Pro plan · active", ["search", "browser", "writer"], "usage-demo-tokens"),
        (
            "Linus",
            "Enterprise plan · active · 5 seats",
            ["files", "sql-reports"],
            "usage-demo-seats",
        ),
        ("Margaret", "Enterprise plan · active · 5 seats", ["search", "writer"], None),
    ],
)
def test_demo_user_sees_a_month_of_their_own(
    page: UsagePage, user: str, plan: str, runs: list[str], picture: str | None
) -> None:
    """Their plan, their runs by server, and, but for who administers nothing, what is billed."""
    page.width(1000)
    page.open_demo()
    names = Select(page.browser.find_element(By.ID, "user"))
    page.until(lambda: names.options)
    names.select_by_visible_text(next(o.text for o in names.options if o.text.startswith(user)))

    page.until_shows(plan)
    page.until_read()
    assert [row[0] for row in page.rows(0)] == runs
    if picture is None:
        assert "Only the account's administrators" in page.text
        return
    page.browser.execute_script("document.activeElement.blur()")
    page.picture(picture)


def settle(ledger: str) -> None:
    """Wait until Stripe has accepted all that is billed: the pictures show no queue."""
    deadline = time.monotonic() + SETTLED_SECONDS
    while int(run_sql(ledger, UNSETTLED)) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert run_sql(ledger, UNSETTLED) == "0\n"
