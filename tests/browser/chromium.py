"""A headless Chromium of this machine, with a profile of its own and no network access."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

WIDTH, HEIGHT = 1200, 900
"""Pixels: the width of the documentation's pictures, and the height of the window."""

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = (
    "--headless",
    "--no-sandbox",  # which a browser started by root does not have
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    f"--window-size={WIDTH},{HEIGHT}",
)


@contextmanager
def chromium(profile: Path) -> Iterator[Chrome]:
    """Run a browser while the context lasts; ``profile`` is an empty folder for its data.

    Fails the test where there is no browser, because a skipped test proves nothing.
    """
    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.fail("no browser: apt-get install chromium chromium-driver", pytrace=False)
    options = ChromeOptions()
    options.binary_location = browser
    for argument in (*_ARGUMENTS, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    running = Chrome(options=options, service=ChromeService(driver))
    try:
        yield running
    finally:
        running.quit()
