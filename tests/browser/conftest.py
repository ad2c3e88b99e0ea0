"""Browsers: the operator in the broker's management UI, a reader of the usage component."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from selenium.webdriver import Chrome

from browser.chromium import chromium
from browser.management_ui import ManagementUi
from browser.usage_data import some_usage
from browser.usage_page import UsagePage
from browser.usage_stand_in import ADA, HostPage, UsageApi, UserData, serving
from integration.messaging.bench import MIN_SCALE, Bench
from local_stack.servers import Broker
from support.node import build_component
from support.vhost import Vhost, open_vhost


@pytest.fixture
async def vhost(broker: Broker, password: str) -> AsyncIterator[Vhost]:
    """Return a vhost with the topology, its retry tiers as short as possible."""
    async with open_vhost(broker, password, tier_scale=MIN_SCALE) as made:
        yield made


@pytest.fixture
async def ui(vhost: Vhost, tmp_path: Path) -> AsyncIterator[ManagementUi]:
    """Return the management UI with the operator logged in."""
    with chromium(tmp_path) as browser:
        page = ManagementUi(browser, vhost.broker.management_url, vhost.name)
        await page.log_in("operator", vhost.password)
        yield page


@pytest.fixture
def bench(request: pytest.FixtureRequest, vhost: Vhost) -> Bench:
    """Return a consumer of tool runs in batches, as usage-ingest has it, or of the given kind."""
    return Bench(vhost, getattr(request, "param", "batch"))


@dataclass(frozen=True)
class UsageSite:
    """A browser, the page that it opens, and the API that the page's component reads."""

    browser: Chrome
    host: HostPage
    api: UsageApi


@pytest.fixture(scope="module")
def usage_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UsageSite]:
    """Return a site that serves the component as it is built now."""
    built = tmp_path_factory.mktemp("component")
    build_component(built)
    api = UsageApi()
    host = HostPage(built, api)
    profile = tmp_path_factory.mktemp("profile")
    with serving(api.handler) as api.url, serving(host.handler) as host.url:
        api.origin = host.url
        with chromium(profile) as browser:
            browser.set_script_timeout(30)
            yield UsageSite(browser, host, api)


@pytest.fixture
def api(usage_site: UsageSite) -> UsageApi:
    """Return the API, which knows no user yet."""
    usage_site.api.reset()
    return usage_site.api


@pytest.fixture
def ada(api: UsageApi) -> UserData:
    """Return the data of the demo page's first user."""
    api.users[ADA] = some_usage()
    return api.users[ADA]


@pytest.fixture
def host(usage_site: UsageSite) -> Iterator[HostPage]:
    """Return the host page's server; at the end, nothing was done that its policy forbids."""
    usage_site.host.reset()
    yield usage_site.host
    assert usage_site.host.violations == []


@pytest.fixture
def page(usage_site: UsageSite, api: UsageApi, host: HostPage) -> Iterator[UsagePage]:
    """Return a window as wide as a laptop's, which prefers light pages."""
    reader = UsagePage(usage_site.browser, host.url)
    reader.width(1100)
    reader.prefer("light")
    yield reader
    api.open.set()  # what a test held back ends before the next one begins
    usage_site.browser.get("about:blank")
