"""The usage component in a browser: what it shows, and what it says without an answer."""

import pytest
from selenium.webdriver.common.keys import Keys

from browser.usage_data import asked
from browser.usage_page import UsagePage
from browser.usage_stand_in import (
    ADA,
    UsageApi,
    UserData,
    at,
    limit,
    midnight,
    run,
)

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]


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
        "30 not sent yet",
        "12 refused by Stripe",
        "10 for a customer that no longer exists at Stripe",
        "2 sent more than 35 days late",
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
    """And a screen reader says it."""
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


def test_user_without_a_plan_and_service_without_plans(page: UsagePage, api: UsageApi) -> None:
    """The first reads that nothing may be run; of the second only runs are shown."""
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
