"""The usage component in a browser: whose figures it shows, by which token."""

from urllib.parse import urlsplit

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

from browser.usage_data import amount, asked, embed
from browser.usage_page import UsagePage
from browser.usage_stand_in import (
    ACME,
    ADA,
    BOB,
    HostPage,
    UsageApi,
    UserData,
    limit,
    run,
)

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]


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
        amounts=[amount(html, 1, 1, reasons=None, **{html: 1}), amount("__proto__", 4)],
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
    """They see their own runs and the limits, and read who sees the rest."""
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
