"""The usage component in a browser: keyboard, screen reader, narrow places, colours and files.

With ``NEXUS_TEST_PICTURES=docs/images``, the last test also takes the documentation's missing
pictures.
"""

import random
from datetime import timedelta
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from browser.usage_data import PHONE, amount, embed, premium
from browser.usage_page import UsagePage
from browser.usage_stand_in import (
    ADA,
    UsageApi,
    UserData,
    limit,
    midnight,
    run,
)
from support.node import component_package

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]


def test_tab_reaches_everything_in_reading_order(page: UsagePage, ada: UserData) -> None:
    """And nothing else; the focus is visible on each."""
    assert ada.recorded
    embed_order = [
        "button: Refresh",
        "input: 30 days",
        "select: Split",
        "slider: Chart of runs",
        "region: by server",
        "summary: Figures by day",
        "button: Download runs (CSV)",
        "button: Download billing (CSV)",
    ]
    page.open_demo()
    page.until_read()
    page.browser.find_element(By.ID, "theme").send_keys("")

    for expected in embed_order:
        assert page.tab().startswith(expected)
        assert focus_is_visible(page), expected


def focus_is_visible(page: UsagePage) -> bool:
    """Tell whether what has the focus, or what is shown for it, has an outline."""
    return bool(
        page.script(
            "const e = document.querySelector('nexus-usage').shadowRoot.activeElement;"
            "const shown = e.type === 'radio' ? e.nextElementSibling : e;"
            "return parseFloat(getComputedStyle(shown).outlineWidth) >= 2"
            " && getComputedStyle(shown).outlineStyle !== 'none'"
        )
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1100, PHONE])
def test_axe_finds_no_fault(
    page: UsagePage, api: UsageApi, ada: UserData, scheme: str, width: int
) -> None:
    """With figures, with a message, with the table open; light and dark, wide and narrow."""
    assert ada.recorded
    ada.recorded.extend(run(f"server-{n}", "tool", n + 1) for n in range(9))
    page.prefer(scheme)
    page.width(width, mobile=width == PHONE)
    page.open_demo()
    page.until_read()
    page.find("summary").click()
    axe = (component_package() / "node_modules/axe-core/axe.min.js").read_text(encoding="utf-8")
    page.browser.execute_script(axe)
    assert faults(page) == []

    api.status = 503
    page.press("Refresh")
    page.until_shows("has no answer")
    assert faults(page) == []


def faults(page: UsagePage) -> list[str]:
    """Return the rules of axe that the component breaks, with the elements."""
    found = page.script(
        "const { violations } = await axe.run('nexus-usage', { runOnly: "
        "['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] });"
        "return violations.map(({id, nodes}) => `${id}: ${nodes.map(({html}) => html).join()}`)"
    )
    assert isinstance(found, list)
    return found


@pytest.mark.parametrize("places", ["phone", "column"])
def test_narrow_place_needs_no_sideways_scrolling(
    page: UsagePage, api: UsageApi, places: str
) -> None:
    """A phone, and a narrow column of a wide page; with long names."""
    long = "a_server_with_a_very_long_name_and_no_place_to_break_it"
    api.users[ADA] = UserData(
        recorded=[run(long, long, 123_456_789, tokens=987_654_321)],
        amounts=[amount(long, 123_456_789, 5, not_sent=5)],
        limits=[limit(long, 123_456_789, 999_999_999, server=long)],
    )
    if places == "phone":
        page.width(PHONE, mobile=True)
        page.open_demo()
    else:
        embed(page, api)
        page.script("document.querySelector('main').style.width = '320px'")
    page.until_read()
    page.pick("Split", "by tool")

    scrolls = "const e = {}; return e.scrollWidth - e.clientWidth"
    assert page.script(scrolls.format("document.documentElement")) == 0
    assert page.script(scrolls.format("document.querySelector('nexus-usage')")) == 0
    heights = [choice.size["height"] for choice in page.find_all(".choice span")]
    assert min(heights) >= 32


def test_colours_follow_the_system_and_the_attribute(page: UsagePage, ada: UserData) -> None:
    """The attribute has precedence."""
    assert ada.recorded
    light, dark = "rgba(255, 255, 255, 1)", "rgba(20, 23, 27, 1)"
    page.open_demo()
    page.until_read()
    assert background(page) == light

    page.prefer("dark")
    page.until(lambda: background(page) == dark)
    theme = Select(page.browser.find_element(By.ID, "theme"))
    theme.select_by_visible_text("light")
    assert background(page) == light
    page.prefer("light")
    theme.select_by_visible_text("dark")
    assert background(page) == dark


def background(page: UsagePage) -> str:
    """Return the colour behind the component's text."""
    return page.part("usage").value_of_css_property("background-color")


def test_host_changes_language_texts_and_colours(
    page: UsagePage, api: UsageApi, ada: UserData
) -> None:
    """Numbers and dates by the page's language, texts and custom properties by the page."""
    assert ada.recorded

    embed(
        page,
        api,
        before="document.documentElement.lang = 'de'; usage.texts = {title: 'Verbrauch', "
        "runCount: {one: '{n} Lauf', other: '{n} Läufe'}};"
        "usage.style.setProperty('--nexus-usage-surface', 'rgb(1, 2, 3)')",
    )
    page.until_read()

    assert "Verbrauch" in page.text
    assert "1.240 Läufe" in page.text
    assert background(page) == "rgba(1, 2, 3, 1)"


def test_component_is_moved_and_removed_without_harm(
    page: UsagePage, api: UsageApi, ada: UserData
) -> None:
    """A framework moves elements about, and removes them while they load."""
    assert ada.recorded
    embed(page, api)
    page.until_read()

    page.script(
        "window.faults = []; addEventListener('error', (e) => faults.push(e.message));"
        "addEventListener('unhandledrejection', (e) => faults.push(String(e.reason)));"
        "const usage = document.querySelector('nexus-usage'), main = usage.parentElement;"
        "usage.refresh(); usage.remove(); await new Promise(requestAnimationFrame);"
        "main.append(usage); main.append(usage)"
    )
    page.until_read()

    assert "1,240 runs" in page.text
    assert len(page.find_all("h2")) == 1
    assert page.script("return faults") == []


def test_downloads_are_text_and_numbers(page: UsagePage, api: UsageApi, tmp_path: Path) -> None:
    """The figures of the range; a spreadsheet takes no name for a formula."""
    api.users[ADA] = UserData(
        recorded=[run("=1+1", 'say "hi", twice', 6, days_ago=1, tokens=3)],
        amounts=[amount("tool_call_executed", 4, 2, refused=2)],
    )
    page.browser.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)}
    )
    page.open_demo()
    page.until_read()

    page.press("Download runs (CSV)")
    page.press("Download billing (CSV)")
    page.until(lambda: len(list(tmp_path.glob("*.csv"))) == 2)

    day = f"{midnight():%Y-%m-%d}"
    first = f"{midnight(29):%Y-%m-%d}"
    before = midnight() - timedelta(days=1)
    assert (tmp_path / f"runs-{first}-to-{day}.csv").read_text("utf-8-sig").splitlines() == [
        "start,server_id,tool_name,runs,tokens",
        f'{before:%Y-%m-%d}T00:00:00.000Z,\'=1+1,"say ""hi"", twice",6,3',
    ]
    assert (tmp_path / f"billing-{first}-to-{day}.csv").read_text("utf-8-sig").splitlines() == [
        "start,meter,accepted,waiting,refused",
        f"{day}T00:00:00.000Z,tool_call_executed,4,2,2",
    ]


def a_quarter() -> UserData:
    """Return 90 days of a team's work, always the same but for their dates."""
    chance = random.Random(4)  # noqa: S311
    tools = [
        ("llm", "complete", 40, 900),
        ("weather", "forecast", 30, 0),
        ("sql-prod", "query", 22, 0),
        ("browser", "open_page", 9, 0),
        ("files", "search", 6, 0),
        ("calendar", "list_events", 2, 0),
        ("mail", "send", 1, 0),
    ]
    recorded = []
    for day in range(90):
        share = (0.35 if midnight(day).weekday() > 4 else 1) * (1.2 - day / 100)
        for server, tool, usual, tokens in tools:
            runs = round(max(0, chance.gauss(usual, usual / 3)) * share)
            if runs > 0:
                recorded.append(run(server, tool, runs, days_ago=day, tokens=runs * tokens))
    return UserData(
        recorded=recorded,
        amounts=[
            amount("tool_call_executed", 2767, 84, not_sent=60, refused=24),
            amount("llm_cost_micros", 37_037_010),
        ],
        limits=[
            limit("runs", 1720, 2000),
            *premium(),
            limit("tokens", 123_456, 1_000_000, hard=False),
        ],
        denied=[{"server_id": "payroll", "tool_name": "*"}],
    )


def test_pictures_of_a_quarter(page: UsagePage, api: UsageApi) -> None:
    """Wide and light, wide and dark, on a phone: the chart is drawn in each."""
    api.users[ADA] = a_quarter()
    page.open_demo()
    page.until_read()
    page.part("chart").send_keys(Keys.ARROW_LEFT)
    assert drawn(page)
    page.picture("usage-light")

    page.prefer("dark")
    page.pick("Split", "by tool")
    assert drawn(page)
    page.picture("usage-dark")

    page.prefer("light")
    page.width(PHONE, mobile=True)
    page.until(lambda: drawn(page))
    page.picture("usage-phone")


def drawn(page: UsagePage) -> bool:
    """Tell whether the chart fits its place and has more than one colour on it."""
    return bool(
        page.script(
            "const plot = document.querySelector('nexus-usage').shadowRoot.querySelector('.plot');"
            "const canvas = plot.querySelector('canvas');"
            "const { width, height } = canvas;"
            "const { data } = canvas.getContext('2d').getImageData(0, 0, width, height);"
            "const colours = new Set(new Uint32Array(data.buffer));"
            "return colours.size > 5 && Math.abs(canvas.clientWidth - plot.clientWidth) < 2"
        )
    )
