"""The usage component in a browser window, as a reader uses it."""

import base64
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from selenium.common.exceptions import (
    NoSuchElementException,
    NoSuchShadowRootException,
    StaleElementReferenceException,
)
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.shadowroot import ShadowRoot
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select
from selenium.webdriver.support.wait import WebDriverWait

from browser.management_ui import PICTURES

_SECONDS: Final = 20.0
_WHILE_LOADED: Final = (
    NoSuchElementException,
    NoSuchShadowRootException,
    StaleElementReferenceException,
)


class UsagePage:
    """The demo page, or a page with nothing but the component."""

    def __init__(self, browser: Chrome, url: str) -> None:
        self.browser = browser
        self.url = url
        self._wait: WebDriverWait[Chrome] = WebDriverWait(
            browser, _SECONDS, poll_frequency=0.05, ignored_exceptions=_WHILE_LOADED
        )

    def open_demo(self) -> None:
        """Open the demo page, signed in as its first user."""
        self.browser.get(f"{self.url}/demo/index.html")

    def open_plain(self) -> None:
        """Open a page without the component, whose module is loaded."""
        self.browser.get(f"{self.url}/plain.html")
        self.script("await import('/nexus-usage.js')")

    def script(self, body: str, *arguments: object) -> Any:
        """Run the body of an asynchronous function in the page; return what it returns."""
        text = (
            "const done = arguments[arguments.length - 1], given = [...arguments].slice(0, -1);"
            f"(async (...args) => {{ {body} }})(...given)"
            ".then(value => done({value}), error => done({error: String(error)}));"
        )
        outcome = self.browser.execute_async_script(text, *arguments)
        assert "error" not in outcome, outcome["error"]
        return outcome.get("value")

    @property
    def root(self) -> ShadowRoot:
        """The component's shadow root, once it has one."""
        return self._wait.until(
            lambda browser: browser.find_element(By.TAG_NAME, "nexus-usage").shadow_root
        )

    def find(self, selector: str) -> WebElement:
        """Return the element of the component that a CSS selector finds first."""
        return self._wait.until(lambda _: self.root.find_element(By.CSS_SELECTOR, selector))

    def find_all(self, selector: str) -> list[WebElement]:
        """Return the elements of the component that a CSS selector finds."""
        return self.root.find_elements(By.CSS_SELECTOR, selector)

    def part(self, name: str) -> WebElement:
        """Return a part of the component by its name for style sheets."""
        return self.find(f"[part~='{name}']")

    @property
    def text(self) -> str:
        """What is seen of the component."""
        return self.part("usage").text

    @property
    def status(self) -> str:
        """What a screen reader said last."""
        return str(self.find("[role='status']").get_property("textContent"))

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until something is true."""
        self._wait.until(lambda _: condition())

    def until_read(self) -> None:
        """Wait until figures or a message stand where loading was."""
        self.until(lambda: self.part("usage").get_attribute("aria-busy") == "false")

    def until_shows(self, text: str) -> None:
        """Wait until a text is seen."""
        self.until(lambda: text in self.text)

    def rows(self, table: int = 0) -> list[list[str]]:
        """Return the cells of a table's body."""
        found = self.find_all("table")[table]
        return [
            [cell.text for cell in row.find_elements(By.CSS_SELECTOR, "th, td")]
            for row in found.find_elements(By.CSS_SELECTOR, "tbody tr")
        ]

    def pick(self, label: str, option: str) -> None:
        """Pick an option of the control with a label."""
        control = self.find(".controls").find_element(
            By.XPATH, f".//label[span[text()='{label}']]/select"
        )
        Select(control).select_by_visible_text(option)

    def choose_range(self, label: str) -> None:
        """Choose a range by its label."""
        self.find(".controls").find_element(By.XPATH, f".//label[span[text()='{label}']]").click()

    def press(self, label: str) -> None:
        """Press a button by its label."""
        self.part("usage").find_element(By.XPATH, f".//button[text()='{label}']").click()

    def keys(self, *keys: str) -> None:
        """Press keys where the focus is."""
        self.browser.switch_to.active_element.send_keys(*keys)

    def focused(self) -> str:
        """Name what has the focus within the component, by role or tag and by label or text."""
        return str(
            self.script(
                "const e = document.querySelector('nexus-usage').shadowRoot.activeElement;"
                "if (e === null) return '';"
                "const name = e.getAttribute('role') ?? e.localName;"
                "const label = e.getAttribute('aria-label') ?? e.labels?.[0]?.innerText"
                " ?? e.textContent; return `${name}: ${label.trim()}`;"
            )
        )

    def tab(self) -> str:
        """Press Tab; name what has the focus then."""
        self.keys(Keys.TAB)
        return self.focused()

    def width(self, pixels: int, height: int = 900, *, mobile: bool = False) -> None:
        """Show the page as a screen of that width does."""
        metrics = {"width": pixels, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def prefer(self, scheme: str) -> None:
        """Prefer light or dark pages."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def picture(self, name: str) -> None:
        """Write a missing picture of the whole page for the documentation."""
        file = Path(os.environ.get(PICTURES, ""), f"{name}.png")
        if PICTURES not in os.environ or file.exists():
            return
        shot = self.browser.execute_cdp_cmd(
            "Page.captureScreenshot", {"captureBeyondViewport": True, "format": "png"}
        )
        file.write_bytes(base64.b64decode(shot["data"]))
