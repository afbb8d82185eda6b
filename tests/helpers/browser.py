"""Chromium for tests of pages, driven by selenium, headless and without a network."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

NAMES = ("chromium", "chromium-browser", "google-chrome")
QUIET = "disable-gpu disable-quic disable-sync disable-background-networking disable-component-update no-first-run"


@contextmanager
def started(profile: Path) -> Iterator[webdriver.Chrome]:
    """A browser with a fresh profile; skips the test if there is none."""
    browser, driver = next(filter(None, map(shutil.which, NAMES)), None), shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("needs Chromium and chromedriver (Debian: apt install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in ("headless=new", "no-sandbox", *QUIET.split(), f"user-data-dir={profile}", "window-size=1280,900"):
        options.add_argument(f"--{flag}")
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield chrome
    finally:
        chrome.quit()


def resize(chrome: webdriver.Chrome, width: int, height: int, phone: bool = False) -> None:
    """Set the viewport in CSS pixels; a phone's follows the page's own width."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def open_page(chrome: webdriver.Chrome, path: Path) -> None:
    """Load a file at desktop size without smooth scrolling, and clear the console."""
    resize(chrome, 1280, 900)
    still = {"features": [{"name": "prefers-reduced-motion", "value": "reduce"}]}
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", still)
    chrome.get_log("browser")
    chrome.get(path.as_uri())


def evaluate(chrome: webdriver.Chrome, expression: str) -> Any:
    """The value of a JavaScript expression."""
    return chrome.execute_script(f"return {expression}")


def wait_until(chrome: webdriver.Chrome, expression: str) -> Any:
    """The value of a JavaScript expression once it is true."""
    return WebDriverWait(chrome, 10, poll_frequency=0.05).until(lambda it: evaluate(it, expression))


def problems(chrome: webdriver.Chrome) -> list[str]:
    """Errors in the console since the page was opened, and requests for anything that the page does not contain."""
    names = evaluate(chrome, "performance.getEntriesByType('resource').map((entry) => entry.name)")
    requests = [name for name in names if not name.startswith(("data:", "blob:"))]
    return requests + [entry["message"] for entry in chrome.get_log("browser") if entry["level"] == "SEVERE"]


def table_rows(chrome: webdriver.Chrome, name: str) -> list[list[str]]:
    """The visible text of the cells of a table's body."""
    rows = f"document.querySelectorAll('#{name} tbody tr')"
    return evaluate(chrome, f"[...{rows}].map((row) => [...row.cells].map((cell) => cell.innerText))")
