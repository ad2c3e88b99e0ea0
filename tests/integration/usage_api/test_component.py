"""``<nexus-usage>`` on the usage API itself: tokens that are good, forged, expired and foreign."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

from browser.chromium import chromium
from browser.usage_page import UsagePage
from browser.usage_stand_in import ACME, ADA, BOB, HostPage, serving
from integration.usage_api.conftest import running_api
from nexus_database import Database
from support.node import build_component
from support.usage_ledger import UsageLedger
from support.usage_tokens import Signer

pytestmark = [pytest.mark.long, pytest.mark.timeout(180)]


@dataclass
class Backend:
    """The host's backend, which signs tokens for whoever the demo page names."""

    url: str = ""
    sign: Callable[[UUID], str] = field(default=str)

    def token(self, user: str) -> str:
        """Return a token for ``user``."""
        return self.sign(UUID(user))


@dataclass(frozen=True)
class Site:
    """A browser on the demo page, and the keys of its backend."""

    page: UsagePage
    host: HostPage
    backend: Backend
    signer: Signer


@pytest.fixture
async def site(
    reader: Database, ledger: UsageLedger, key_set: Path, tmp_path: Path
) -> AsyncIterator[Site]:
    """Return the demo page at the origin that the API allows."""
    assert ledger is not None
    built = tmp_path / "component"
    await asyncio.to_thread(build_component, built)
    backend = Backend()
    host = HostPage(built, backend)
    with ExitStack() as stack:
        host.url = stack.enter_context(serving(host.handler))
        async with running_api(reader, key_set, origins=[host.url]) as api:
            backend.url, backend.sign = api.url, api.signer.token
            start = stack.enter_context
            browser = await asyncio.to_thread(lambda: start(chromium(tmp_path / "profile")))
            browser.set_script_timeout(30)
            page = UsagePage(browser, host.url)
            yield Site(page, host, backend, api.signer)
            assert host.violations == []


async def test_two_users_in_two_tabs_see_their_own(site: Site, ledger: UsageLedger) -> None:
    """Runs, and amounts with what waits and why."""
    await ledger.runs(UUID(ADA), 12, tool=("weather", "forecast"), tokens=5)
    await ledger.report(UUID(ADA), 10)
    await ledger.report(UUID(ADA), 2, state="pending")
    await ledger.runs(UUID(BOB), 7, tool=("bobs-server", "tool"))

    def look(page: UsagePage) -> None:
        page.open_demo()
        page.until_shows("12 runs")
        assert page.rows(0) == [["weather", "12", "100.0%", "60"]]
        assert page.rows(-1)[0][1:] == ["10", "2"]
        assert "2 not sent yet" in page.text
        page.browser.switch_to.new_window("tab")
        page.open_demo()
        page.until_read()
        Select(page.browser.find_element(By.ID, "user")).select_by_visible_text("Bob")
        page.until_shows("bobs-server")
        assert "weather" not in page.text
        page.browser.switch_to.window(page.browser.window_handles[0])
        page.press("Refresh")
        page.until_read()
        assert "bobs-server" not in page.text
        for label in ("7 days", "90 days", "This period"):
            page.choose_range(label)
            page.until_read()
            assert "12 runs" in page.text, label
        page.choose_range("7 days")
        page.pick("Show", "per hour")
        page.until_read()
        assert "12 runs" in page.text
        assert not page.part("message").is_displayed()

    await asyncio.to_thread(look, site.page)


@pytest.mark.parametrize("token", ["forged", "expired", "for another audience"])
async def test_token_that_is_no_good_shows_nothing(
    site: Site, ledger: UsageLedger, token: str
) -> None:
    """The reader sees that there is no access, and sees the figures once there is."""
    await ledger.runs(UUID(ADA), 12, tool=("weather", "forecast"))
    good = site.signer.token
    site.backend.sign = {
        "forged": Signer().token,
        "expired": lambda user: good(user, now=time.time() - 3600),
        "for another audience": lambda user: good(user, aud="another"),
    }[token]

    def look(page: UsagePage) -> None:
        page.open_demo()
        page.until_shows("Access to these figures has expired, or was not given.")
        assert "weather" not in page.text
        site.backend.sign = good
        page.press("Try again")
        page.until_shows("12 runs")

    await asyncio.to_thread(look, site.page)


async def test_foreign_account_is_refused(site: Site, ledger: UsageLedger) -> None:
    """Without the claim for an account nobody sees what it is billed for."""
    await ledger.assign(UUID(ADA), UUID(ACME))
    await ledger.runs(UUID(ADA), 12, tool=("weather", "forecast"))
    await ledger.report(UUID(ACME), 99)

    def look(page: UsagePage) -> None:
        page.open_demo()
        page.until_shows("12 runs")
        assert "Only the account's administrators" in page.text
        assert "99" not in page.text
        page.script(f"document.querySelector('nexus-usage').setAttribute('account', '{ACME}')")
        page.until_shows("These figures are not yours to see.")

        site.backend.sign = lambda user: site.signer.token(user, UUID(ACME))
        page.script("document.querySelector('nexus-usage').token = null")
        page.until_shows("for all its users")
        assert page.rows(-1)[0][1] == "99"

    await asyncio.to_thread(look, site.page)
