"""The usage component in a browser, on answers that are odd, wrong, late or cut off."""

from collections.abc import Callable
from contextlib import suppress
from time import sleep

import pytest

from browser.usage_data import amount, embed
from browser.usage_page import UsagePage
from browser.usage_stand_in import (
    ADA,
    BOB,
    Request,
    UsageApi,
    UserData,
    limit,
    midnight,
    run,
)

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]

UNREADABLE = "The usage service gave an answer that cannot be read."
UNREACHABLE = "The usage service cannot be reached."
MAX_SAFE_INTEGER = 2**53 - 1
MAX_ROWS = 20_000
"""An answer of the usage API has no more."""


def _head(request: Request, status: int, **headers: str) -> None:
    request.send_response(status)
    request.send_header("Access-Control-Allow-Origin", request.headers["Origin"])
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    request.close_connection = True


def _cut_off(request: Request) -> None:
    _head(request, 200, Content_Length="1000")
    request.wfile.write(b'{"user_id": ')


def _cut_chunk(request: Request) -> None:
    _head(request, 200, Transfer_Encoding="chunked")
    request.wfile.write(b"5\r\n{}   \r\n40\r\n{")


def _drip(request: Request) -> None:
    _head(request, 200, Content_Length="100000")
    with suppress(OSError):
        for _ in range(600):  # ends by itself where nobody hangs up
            request.wfile.write(b" ")
            sleep(0.05)


def _elsewhere(request: Request) -> None:
    _head(request, 302, Location="/v1/other", Content_Length="0")


def _unchanged(request: Request) -> None:
    _head(request, 304)


def _nested(request: Request) -> None:
    body = b"[" * 200_000
    _head(request, 200, Content_Length=str(len(body)))
    request.wfile.write(body)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (_cut_off, UNREACHABLE),
        (_cut_chunk, UNREACHABLE),
        (_drip, UNREACHABLE),
        (_elsewhere, UNREACHABLE),
        (_unchanged, UNREADABLE),
        (_nested, UNREADABLE),
    ],
)
def test_answer_that_is_not_whole_is_an_error(
    page: UsagePage,
    api: UsageApi,
    ada: UserData,
    fault: Callable[[Request], None],
    message: str,
) -> None:
    """What was read before stays, as old as it says; a slow answer has a time limit."""
    assert ada.recorded
    soon = (
        "const { timeout } = AbortSignal;AbortSignal.timeout = () => timeout.call(AbortSignal, 2e3)"
    )
    embed(page, api, before=soon)
    page.until_read()
    api.fault = fault

    page.press("Refresh")
    page.until_shows(message)

    assert "1,240 runs" in page.text
    api.fault = None
    page.press("Try again")
    page.until(lambda: not page.part("message").is_displayed())


def test_answer_of_another_time_is_not_shown(page: UsagePage, api: UsageApi, ada: UserData) -> None:
    """Such as that of a cache on the way, which ignores what was asked."""
    assert ada.recorded
    api.days_off = 1

    page.open_demo()

    page.until_shows(UNREADABLE)
    assert "weather" not in page.text


@pytest.mark.parametrize(
    "data",
    [
        UserData(recorded=[run("a", "t", -5)]),
        UserData(recorded=[run("a", "t", MAX_SAFE_INTEGER), run("b", "t", 1)]),
        UserData(recorded=[run("a", "t", 1) | {"tokens": "7"}]),
        UserData(amounts=[amount("m", 1.5)]),  # type: ignore[arg-type]
        UserData(limits=[limit("runs", 1, 2) | {"used": "1"}]),
    ],
    ids=["negative", "too large", "text", "fraction", "used"],
)
def test_number_that_cannot_be_right_is_not_shown(
    page: UsagePage, api: UsageApi, data: UserData
) -> None:
    """Nor one that JavaScript would round."""
    api.users[ADA] = data

    page.open_demo()

    page.until_shows(UNREADABLE)
    assert page.find_all("table") == []


def test_largest_numbers_are_exact(page: UsagePage, api: UsageApi) -> None:
    """In tables, limits and money; the chart is drawn in a moment."""
    api.users[ADA] = UserData(
        recorded=[run("a", "t", MAX_SAFE_INTEGER)],
        amounts=[amount("llm_cost_micros", MAX_SAFE_INTEGER - 1, 1, not_sent=1)],
        limits=[limit("runs", MAX_SAFE_INTEGER - 1, MAX_SAFE_INTEGER)],
    )

    page.open_demo()
    page.until_read()

    assert page.rows(0) == [["a", "9,007,199,254,740,991", "100.0%", "0"]]
    assert "1 left" in page.text
    cost = page.rows(-1)[0]
    assert cost[1:] == ["$9,007,199,254.74099", "$0.000001"]


def test_longest_answer_is_shown(page: UsagePage, api: UsageApi) -> None:
    """With every tool in the table."""
    api.users[ADA] = UserData(
        recorded=[run(f"s{n % 100}", f"t{n}", 1, days_ago=n % 30) for n in range(MAX_ROWS)]
    )

    page.open_demo()
    page.until_read()
    page.pick("Split", "by tool")

    assert "20,000 runs" in page.text
    count = (
        "return document.querySelector('nexus-usage').shadowRoot.querySelector('tbody').rows.length"
    )
    assert page.script(count) == MAX_ROWS


def test_period_that_is_longer_than_any_answer_says_so(
    page: UsagePage, api: UsageApi, ada: UserData
) -> None:
    """A subscription may be for three years; a part of it is not called the period."""
    assert ada.recorded
    api.period_days = 3 * 365
    page.open_demo()
    page.until_read()

    page.choose_range("This period")

    page.until_shows("This range has too many figures. Choose a shorter one.")


@pytest.mark.parametrize("days", [-3, 3])
def test_browser_whose_clock_is_wrong(
    page: UsagePage, api: UsageApi, ada: UserData, days: int
) -> None:
    """Today's runs are shown, and which days the figures are of."""
    assert ada.recorded
    wrong = f"const {{ now }} = Date; Date.now = () => now() + {days} * 864e5"

    embed(page, api, before=wrong)
    page.until_read()

    assert "1,240 runs" in page.text
    last = midnight(min(0, -days) if days > 0 else 0)
    assert f"{last.day}, {last.year} UTC" in page.text


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Pago_Pago"])
def test_days_are_utc_wherever_the_reader_is(page: UsagePage, ada: UserData, zone: str) -> None:
    """Fourteen hours ahead, and eleven behind."""
    assert ada.recorded
    page.browser.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": zone})
    try:
        page.open_demo()
        page.until_read()
        page.find("summary").click()

        rows = page.rows(1)
        assert [row[1] for row in rows[:2]] == ["40", "1,200"]
        assert f" {midnight().day}" in rows[0][0]
        assert f"{midnight():%b} {midnight().day}, {midnight().year}" in page.text
    finally:
        page.browser.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": ""})


def test_another_token_provider_is_another_users(
    page: UsagePage, api: UsageApi, ada: UserData
) -> None:
    """The last user's figures go at once, and their token is not used again."""
    assert ada.recorded
    api.users[BOB] = UserData(recorded=[run("bobs-server", "tool", 7)])
    embed(page, api, user=None, before=f"usage.tokenProvider = () => '{api.token(ADA)}'")
    page.until_shows("1,240 runs")
    api.open.clear()

    page.script(
        "document.querySelector('nexus-usage').tokenProvider = () => args[0]", api.token(BOB)
    )

    page.until(lambda: page.status == "Loading usage…")
    assert "weather" not in page.text
    api.open.set()
    page.until_shows("bobs-server")


def test_page_overrides_what_the_service_says_of_meters(
    page: UsagePage, api: UsageApi, ada: UserData
) -> None:
    """Name and unit each; a page without types may set nothing."""
    assert ada.recorded
    embed(page, api, before="usage.meters = { llm_cost_micros: { name: 'Models' } }")
    page.until_read()
    assert page.rows(-1)[0] == ["Models", "$1.5000", "$0.0000"]
    assert page.rows(-1)[1][0].startswith("Tool runs")

    page.script("document.querySelector('nexus-usage').meters = undefined")

    page.until_shows("LLM cost")
