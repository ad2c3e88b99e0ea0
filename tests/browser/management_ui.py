"""The broker's management UI as an operator uses it.

Elements are found by their labels and headings, which are the same in RabbitMQ 3.10 and 4.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine
from functools import wraps
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar
from urllib.parse import quote

from selenium.common.exceptions import (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    NoSuchElementException,
    StaleElementReferenceException,
)
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support import expected_conditions as met
from selenium.webdriver.support.wait import WebDriverWait

PICTURES: Final = "NEXUS_TEST_PICTURES"
"""The folder for the documentation's pictures; only missing ones are written. Unset: none are."""

P = ParamSpec("P")
T = TypeVar("T")

_SECONDS = 30.0
# The page is redrawn every five seconds: an element that was just found may be gone or moved.
_WHILE_REDRAWN = (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    NoSuchElementException,
    StaleElementReferenceException,
)


def _in_thread(method: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Return ``method``, which waits for the browser, as a coroutine function."""

    @wraps(method)
    async def threaded(*arguments: P.args, **options: P.kwargs) -> T:
        return await asyncio.to_thread(method, *arguments, **options)

    return threaded


class ManagementUi:
    """A browser window. Every method waits up to 30 s for the element it needs."""

    def __init__(self, browser: Chrome, url: str, vhost: str) -> None:
        self._browser = browser
        self._url = url
        self._vhost = vhost
        self._wait: WebDriverWait[Chrome] = WebDriverWait(
            browser, _SECONDS, ignored_exceptions=_WHILE_REDRAWN
        )

    @_in_thread
    def log_in(self, user: str, password: str) -> None:
        """Log in by the form."""
        self._browser.get(self._url)
        self._field("username").send_keys(user)
        self._field("password").send_keys(password)
        self._press("Login")
        self._wait.until(met.visibility_of_element_located((By.ID, "logout")))

    @_in_thread
    def see_queued(self, queue: str, messages: int) -> None:
        """Wait until the list of queues shows so many messages in ``queue``; it lags by seconds."""
        self._show(f"{self._url}/#/queues")
        self._wait.until(lambda _: self._total(queue) == str(messages))
        row = self._browser.find_element(By.XPATH, self._row(queue))
        self._picture("queues", upward_from=row)

    def _total(self, queue: str) -> str:
        """Read the third number of the queue's row: ready, unacked, total."""
        found = self._browser.find_elements(By.XPATH, f"{self._row(queue)}/td[@class='r']")
        return found[2].text if len(found) > 2 else ""

    def _row(self, queue: str) -> str:
        """Return the XPath of the queue's row: the list may show other vhosts' queues, too."""
        return f"//tr[td/a[@href='{self._link(queue)}']]"

    def _link(self, queue: str) -> str:
        return f"#/queues/{quote(self._vhost, safe='')}/{quote(queue, safe='')}"

    @_in_thread
    def open_queue(self, queue: str) -> None:
        """Open the page of ``queue`` by its link in the list of queues."""
        self._show(f"{self._url}/#/queues")
        self._click(By.XPATH, f"{self._row(queue)}/td/a")
        self._wait.until(met.url_contains(f"/{self._link(queue)}"))
        self._wait.until(met.text_to_be_present_in_element((By.TAG_NAME, "h1"), queue))

    @_in_thread
    def get_messages(self, number: int = 1) -> list[str]:
        """Press *Get Message(s)* on the open queue's page; return the text of each message."""
        self._unfold("Get messages")
        count = self._field("count")
        count.clear()
        count.send_keys(str(number))
        shown = (By.CSS_SELECTOR, "#msg-wrapper .box")
        earlier = self._browser.find_elements(*shown)
        self._press("Get Message(s)")
        if earlier:
            self._wait.until(met.staleness_of(earlier[0]))
        boxes = self._wait.until(met.visibility_of_all_elements_located(shown))
        texts = [box.text for box in boxes]
        self._picture("get-messages", upward_from=boxes[-1])
        return texts

    @_in_thread
    def move_messages(self, destination: str) -> None:
        """Press *Move messages* on the open queue's page."""
        self._unfold("Move messages")
        field = self._field("dest-queue")
        field.send_keys(destination)
        form = field.find_element(By.XPATH, "ancestor::form")
        self._picture("move-messages", upward_from=form)
        self._press("Move messages")
        self._wait.until(met.staleness_of(field))

    def _show(self, address: str) -> None:
        self._browser.get(address)
        self._browser.refresh()  # its own address does not redraw a page

    def _field(self, name: str) -> WebElement:
        return self._wait.until(
            met.visibility_of_element_located((By.CSS_SELECTOR, f"input[name='{name}']"))
        )

    def _press(self, label: str) -> None:
        self._click(By.CSS_SELECTOR, f"input[type='submit'][value='{label}']")

    def _click(self, by: str, value: str) -> None:
        def clicked(browser: Chrome) -> bool:
            browser.find_element(by, value).click()
            return True

        self._wait.until(clicked)

    def _unfold(self, heading: str) -> None:
        """Open a folded section; an open one stays open, as the UI remembers it."""

        def unfolded(browser: Chrome) -> bool:
            section = browser.find_element(By.XPATH, f"//div[h2[normalize-space()='{heading}']]")
            if section.find_element(By.CLASS_NAME, "hider").is_displayed():
                return True
            section.find_element(By.TAG_NAME, "h2").click()
            return False

        self._wait.until(unfolded)

    def _picture(self, name: str, *, upward_from: WebElement | None = None) -> None:
        """Write a missing picture of the page; ``upward_from`` is at its lower edge."""
        file = Path(os.environ.get(PICTURES, ""), f"{name}.png")
        if PICTURES not in os.environ or file.exists():
            return
        if upward_from is not None:
            self._browser.execute_script("arguments[0].scrollIntoView({block: 'end'})", upward_from)
        file.write_bytes(self._browser.get_screenshot_as_png())
