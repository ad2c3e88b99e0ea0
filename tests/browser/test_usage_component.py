"""The usage component in a browser; the page's policy allows no inline style and no inline script.

With ``NEXUS_TEST_PICTURES=docs/images``, the last test also takes the documentation's missing
pictures.
"""

import random
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from browser.usage_page import UsagePage
from browser.usage_stand_in import (
    ACME,
    ADA,
    BOB,
    HostPage,
    Json,
    UsageApi,
    UserData,
    at,
    limit,
    midnight,
    run,
)
from support.node import component_package

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]

PHONE = 360
"""Pixels: the width of a small phone."""


def amount(meter: str, accepted: int, waiting: int = 0, **why: int) -> Json:
    """Build an entry of ``amounts``, for today."""
    start = at(midnight())
    return {"start": start, "meter": meter, "accepted": accepted, "waiting": waiting, "why": why}


def some_usage() -> UserData:
    """Return two servers' runs of two days, two limits, and amounts of two meters."""
    return UserData(
        recorded=[
            run("weather", "forecast", 1200, days_ago=1, tokens=50),
            run("weather", "alerts", 34),
            run("files", "search", 6),
        ],
        amounts=[
            amount("tool_call_executed", 1198, 42, not_sent=30, refused=12),
            amount("llm_cost_micros", 1_500_000),
        ],
        limits=[limit("runs", 1240, 2000), *premium()],
        denied=[{"server_id": "payroll", "tool_name": "*"}],
    )


def premium() -> list[Json]:
    """Return a limit that is reached, of two patterns: an entry for each."""
    return [limit("premium", 200, 200, server=server) for server in ("browser", "sql-*")]


@pytest.fixture
def ada(api: UsageApi) -> UserData:
    """Return the data of the demo page's first user."""
    api.users[ADA] = some_usage()
    return api.users[ADA]


def asked(api: UsageApi, path: str = "/v1/usage") -> dict[str, str]:
    """Return the parameters of the last request of a path."""
    requests = [urlsplit(request) for request, _ in api.requests]
    query = next(each.query for each in reversed(requests) if each.path == path)
    return {name: values[0] for name, values in parse_qs(query).items()}


def embed(page: UsagePage, api: UsageApi, *, before: str = "", user: str | None = ADA) -> None:
    """Put the component into a page that has nothing else; ``before`` runs with it as ``usage``."""
    page.open_plain()
    page.script(
        "const [src, token, before] = args; const usage = document.createElement('nexus-usage');"
        f"usage.setAttribute('src', src); if (token) usage.setAttribute('token', token); {before};"
        "document.querySelector('main').append(usage)",
        api.url,
        None if user is None else api.token(user),
    )


def test_runs_limits_and_amounts_are_shown(page: UsagePage, ada: UserData) -> None:
    """With what is left, what waits and why, and how old the figures are."""
    assert ada.plan == "Pro"

    page.open_demo()
    page.until_read()

    assert page.rows(0) == [
        ["weather", "1,234", "99.5%", "50"],
        ["files", "6", "0.5%", "0"],
    ]
    text = page.text
    for expected in (
        "Pro plan · active",
        "As of ",
        "760 left",
        "1,240 of 2,000 used",
        "Limit reached",
        "For browser, sql-*.",
        "60 runs a minute, each server",
        "payroll",
        "Waiting: 30 not sent yet, 12 refused by Stripe",
    ):
        assert expected in text
    assert page.rows(2)[0] == ["LLM cost", "$1.5000", "$0.0000"]
    assert page.rows(2)[1][1:] == ["1,198", "42"]
    assert page.status.startswith("1,240 runs from ")


def test_each_bar_is_read_by_the_arrow_keys(page: UsagePage, ada: UserData) -> None:
    """A screen reader hears the same figures as the pointer shows, day by day."""
    assert ada.recorded
    page.open_demo()
    page.until_read()
    chart = page.part("chart")

    chart.send_keys(Keys.END)
    today = str(chart.get_attribute("aria-valuetext"))
    chart.send_keys(Keys.ARROW_LEFT)
    yesterday = str(chart.get_attribute("aria-valuetext"))

    assert "40 runs; weather 34; files 6" in today
    assert "1,200 runs; weather 1,200" in yesterday
    assert "1,200 runs" in page.part("readout").text
    assert chart.get_attribute("aria-valuenow") == "29"
    chart.send_keys(Keys.HOME, Keys.ARROW_LEFT)
    assert chart.get_attribute("aria-valuenow") == "1"


def test_table_under_the_chart_has_its_figures(page: UsagePage, ada: UserData) -> None:
    """Every day of the range, the last first."""
    assert ada.recorded
    page.open_demo()
    page.until_read()

    page.find("summary").click()

    rows = page.rows(1)
    assert len(rows) == 30
    assert [row[1:] for row in rows[:3]] == [
        ["40", "34", "6"],
        ["1,200", "1,200", "0"],
        ["0", "0", "0"],
    ]


def test_range_step_and_split_are_picked(page: UsagePage, api: UsageApi, ada: UserData) -> None:
    """Days end with today; hours are offered for a week; the period begins where Stripe's does."""
    assert ada.recorded
    page.open_demo()
    page.until_read()
    assert asked(api) == {
        "from": at(midnight(29)).replace("Z", ".000Z"),
        "to": at(midnight(-1)).replace("Z", ".000Z"),
        "by": "day",
    }

    page.pick("Split", "by tool")
    assert page.rows(0)[1] == ["alerts weather", "34", "2.7%", "0"]
    page.choose_range("7 days")
    page.until_read()
    page.pick("Show", "per hour")
    page.until_read()
    assert asked(api)["by"] == "hour"
    assert asked(api)["from"].startswith(f"{midnight(6):%Y-%m-%d}T00:00")

    page.choose_range("This period")
    page.until_read()
    assert asked(api)["by"] == "day"
    assert asked(api)["from"].startswith(f"{midnight():%Y-%m}-01T00:00")


def test_range_without_runs_says_so(page: UsagePage, api: UsageApi) -> None:
    """In place of a chart; limits and amounts are shown nevertheless."""
    api.users[ADA] = UserData(limits=[limit("runs", 0, 10)])

    page.open_demo()
    page.until_read()

    assert "No runs in this range." in page.text
    assert "10 left" in page.text
    assert "Nothing to bill in this range." in page.text
    assert not page.part("chart").is_displayed()


def test_loading_is_shown_until_the_answer(page: UsagePage, api: UsageApi, ada: UserData) -> None:
    """And a screen reader is told."""
    assert ada.recorded
    api.open.clear()

    page.open_demo()
    page.until(lambda: page.status == "Loading usage…")
    assert page.part("usage").get_attribute("aria-busy") == "true"
    assert "Loading usage…" in page.text

    api.open.set()
    page.until_read()
    assert "Loading" not in page.text


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (403, "These figures are not yours to see."),
        (404, "There is no usage service at the address that this page names."),
        (429, "Too many requests. Try again in a minute."),
        (503, "The usage service has no answer at the moment."),
    ],
)
def test_error_is_named_and_tried_again(
    page: UsagePage, api: UsageApi, ada: UserData, status: int, message: str
) -> None:
    """The figures that were read before stay; the focus goes on where the message was."""
    assert ada.recorded
    page.open_demo()
    page.until_read()
    api.status = status

    page.press("Refresh")
    page.until_shows(message)
    assert page.status == message
    assert "1,240 runs" in page.text

    api.status = None
    page.press("Try again")
    page.until(lambda: not page.part("message").is_displayed())
    assert page.focused() == "h2: Your usage"


@pytest.mark.parametrize("text", ["<html>a proxy's page</html>", "[]", '{"user_id": 7}'])
def test_answer_of_something_else_is_an_error(
    page: UsagePage, api: UsageApi, ada: UserData, text: str
) -> None:
    """A proxy's page, or JSON of another shape."""
    assert ada.recorded
    api.text = text

    page.open_demo()

    page.until_shows("The usage service gave an answer that cannot be read.")


def test_service_that_is_away_is_an_error(page: UsagePage, api: UsageApi) -> None:
    """No connection, which a browser does not tell from a refused origin."""
    api.origin, allowed = "http://another.example", api.origin
    try:
        page.open_demo()
        page.until_shows("The usage service cannot be reached.")
    finally:
        api.origin = allowed


def test_expired_token_is_replaced_without_a_word(
    page: UsagePage, api: UsageApi, host: HostPage, ada: UserData
) -> None:
    """The page is asked for one token, and the reader sees nothing of it."""
    page.open_demo()
    page.until_read()
    ada.recorded.append(run("mail", "send", 5))
    api.valid.clear()

    page.press("Refresh")
    page.until_shows("1,245 runs")

    assert host.tokens_asked == 2
    assert not page.part("message").is_displayed()


def test_reader_without_access_is_told_and_can_try_again(
    page: UsagePage, api: UsageApi, host: HostPage, ada: UserData
) -> None:
    """The page gives no token, or one that the API refuses."""
    assert ada.recorded
    page.open_demo()
    page.until_read()
    api.valid.clear()
    host.gives_tokens = False

    page.press("Refresh")
    page.until_shows("Access to these figures has expired, or was not given.")
    assert "1,240 runs" in page.text

    host.gives_tokens = True
    page.press("Try again")
    page.until(lambda: not page.part("message").is_displayed())


def test_page_answers_the_event_later(page: UsagePage, api: UsageApi, ada: UserData) -> None:
    """It says that it will, and sets the token once it has one."""
    assert ada.recorded
    token = api.token(ADA)
    embed(
        page,
        api,
        user=None,
        before="usage.addEventListener('nexus-usage-token', (e) => { e.preventDefault();"
        "window.asked = (window.asked ?? 0) + 1 })",
    )
    page.until(lambda: page.script("return window.asked") == 1)
    assert page.part("usage").get_attribute("aria-busy") == "true"

    page.script("document.querySelector('nexus-usage').token = args[0]", token)

    page.until_read()
    assert "1,240 runs" in page.text


def test_page_with_bad_tokens_is_asked_once(page: UsagePage, api: UsageApi, ada: UserData) -> None:
    """A page that answers each event with a refused token makes no endless loop."""
    assert ada.recorded
    bad = api.token(ADA)
    del api.valid[bad]
    api.requests.clear()

    embed(
        page,
        api,
        user=None,
        before=f"usage.addEventListener('nexus-usage-token', () => usage.token = '{bad}')",
    )
    page.until_shows("Access to these figures has expired")

    assert len(api.requests) == 2


def test_two_users_in_two_tabs_see_their_own(page: UsagePage, api: UsageApi, ada: UserData) -> None:
    """In one browser, whose cache would answer one with what the other may see."""
    assert ada.recorded
    api.users[BOB] = UserData(recorded=[run("bobs-server", "tool", 7)])
    browser = page.browser
    page.open_demo()
    page.until_read()
    first = browser.current_window_handle
    browser.switch_to.new_window("tab")
    try:
        page.open_demo()
        page.until_read()
        sign_in(browser.find_element(By.ID, "user"), "Bob")
        page.until_shows("bobs-server")
        assert "weather" not in page.text

        browser.switch_to.window(first)
        page.press("Refresh")
        page.until_read()
        assert "weather" in page.text
        assert "bobs-server" not in page.text
    finally:
        for handle in browser.window_handles:
            browser.switch_to.window(handle)
            if handle != first:
                browser.close()
        browser.switch_to.window(first)


def sign_in(select: object, name: str) -> None:
    """Change the demo page's user."""
    Select(select).select_by_visible_text(name)  # type: ignore[arg-type]


def test_next_user_never_sees_the_last_ones_figures(
    page: UsagePage, api: UsageApi, ada: UserData
) -> None:
    """Not even while his own are loading."""
    assert ada.recorded
    page.open_demo()
    page.until_read()
    api.open.clear()

    sign_in(page.browser.find_element(By.ID, "user"), "Bob")
    page.until(lambda: page.status == "Loading usage…")

    assert "weather" not in page.text
    assert "weather" not in str(page.part("usage").get_property("innerHTML"))


def test_user_who_signs_out_leaves_no_figures(
    page: UsagePage, host: HostPage, ada: UserData
) -> None:
    """Although the page has no token for anybody else."""
    assert ada.recorded
    page.open_demo()
    page.until_read()
    host.gives_tokens = False

    page.script("document.querySelector('nexus-usage').token = null")
    page.until_shows("Access to these figures has expired, or was not given.")

    assert "weather" not in str(page.part("usage").get_property("innerHTML"))


def test_answer_about_another_user_is_not_shown(
    page: UsagePage, api: UsageApi, ada: UserData
) -> None:
    """Such as a cache's on the way, which knows no users."""
    assert ada.recorded
    api.about = BOB

    page.open_demo()

    page.until_shows("The usage service gave an answer that cannot be read.")
    assert "weather" not in page.text


def test_properties_count_that_are_set_before_the_module_is_loaded(
    page: UsagePage, api: UsageApi, ada: UserData
) -> None:
    """As a framework sets them, which need not wait for it."""
    assert ada.recorded
    page.browser.get(f"{page.url}/plain.html")

    page.script(
        "const usage = document.createElement('nexus-usage'); usage.setAttribute('src', args[0]);"
        "document.querySelector('main').append(usage);"
        "usage.tokenProvider = async () => args[1]; usage.texts = { title: 'Verbrauch' };"
        "await import('/nexus-usage.js')",
        api.url,
        api.token(ADA),
    )
    page.until_read()

    assert "Verbrauch" in page.text
    assert "1,240 runs" in page.text


def test_html_in_names_is_shown_as_text(page: UsagePage, api: UsageApi) -> None:
    """Names come from others' servers, and whoever answers may be forged."""
    html = '<img src=x onerror="window.forged=1"><script>window.forged=1</script>'
    api.users[ADA] = UserData(
        recorded=[run(html, "t", 5), run("__proto__", "constructor", 2)],
        amounts=[amount(html, 1, 1, **{html: 1}), amount("__proto__", 4)],
        limits=[limit(html, 1, 2, server=html)],
        plan=html,
        denied=[{"server_id": html, "tool_name": html}],
    )

    page.open_demo()
    page.until_read()

    assert page.rows(0) == [[html, "5", "71.4%", "0"], ["__proto__", "2", "28.6%", "0"]]
    assert page.text.count(html) >= 7
    assert page.find_all("img, script") == []
    assert page.script("return window.forged") is None


def test_token_stays_out_of_addresses_cookies_and_storage(
    page: UsagePage, api: UsageApi, host: HostPage, ada: UserData
) -> None:
    """And nobody but the page's own server and the API is asked for anything."""
    assert ada.recorded
    page.open_demo()
    page.script("document.cookie = 'session=of-the-host; path=/'")
    page.browser.refresh()
    page.until_read()

    for path, cookies in api.requests:
        assert not any(token in path for token in api.valid)
        assert cookies == ""
    stored = (
        "return [localStorage.length, sessionStorage.length, (await indexedDB.databases()).length]"
    )
    assert page.script(stored) == [0, 0, 0]
    assert page.script("return document.cookie") == "session=of-the-host"
    loaded = page.script("return performance.getEntriesByType('resource').map(({name}) => name)")
    assert {urlsplit(each).netloc for each in loaded if not each.startswith("data:")} == {
        urlsplit(host.url).netloc,
        urlsplit(api.url).netloc,
    }
    page.script("document.cookie = 'session=; path=/; max-age=0'")


def test_member_of_an_account_sees_no_amounts_of_it(page: UsagePage, api: UsageApi) -> None:
    """They see their own runs and the limits, and are told who sees the rest."""
    hidden = limit("runs", 0, 2000) | {"used": None, "remaining": None}
    api.users[ADA] = UserData(
        recorded=[run("files", "search", 6)], amounts=None, limits=[hidden], account=ACME
    )

    page.open_demo()
    page.until_read()

    assert "Only the account's administrators see what it is billed for." in page.text
    assert "at most 2,000" in page.text
    assert page.find_all("[role='meter']") == []
    assert [button.text for button in page.find_all("[part='download']")] == ["Download runs (CSV)"]


def test_amounts_of_a_shared_account_are_called_so(
    page: UsagePage, api: UsageApi, ada: UserData
) -> None:
    """For whoever's token has the claim; the account is asked for by attribute."""
    ada.account = ACME

    embed(page, api, before=f"usage.setAttribute('account', '{ACME}')")
    page.until_read()

    assert asked(api)["account"] == ACME
    assert "What the account is billed for, for all its users, in this range." in page.text
    assert "All users of your account share them." in page.text


def test_user_without_a_plan_and_service_without_plans(page: UsagePage, api: UsageApi) -> None:
    """The first is told that nothing may be run; of the second only runs are shown."""
    nothing = [{"server_id": "*", "tool_name": "*"}]
    api.users[ADA] = UserData(recorded=[run("files", "search", 6)], plan=None, denied=nothing)
    page.open_demo()
    page.until_read()
    assert "No plan" in page.text
    assert "all servers and tools" in page.text

    api.plans = False
    page.press("Refresh")
    page.until_read()

    assert "No plan" not in page.text
    assert not page.part("limits").is_displayed()
    assert "6 runs" in page.text


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
