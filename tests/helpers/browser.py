"""A real browser for the tests of pages: the system's Chromium, driven by selenium, without a window or a network."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

NAMES = ("chromium", "chromium-browser", "google-chrome")
QUIET = "disable-gpu disable-quic disable-sync disable-background-networking disable-component-update no-first-run"


@contextmanager
def started(profile: Path) -> Iterator[webdriver.Chrome]:
    """A browser with a fresh profile; skips the test, saying why, where there is none."""
    browser = next(filter(None, map(shutil.which, NAMES)), None)
    driver = shutil.which("chromedriver")
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
    """The viewport in CSS pixels; a phone's takes the page's own word for its width."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def opened(chrome: webdriver.Chrome, path: Path) -> None:
    """Load a page from its file, on a desktop, without smooth scrolling; the log begins anew."""
    resize(chrome, 1280, 900)
    still = {"features": [{"name": "prefers-reduced-motion", "value": "reduce"}]}
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", still)
    chrome.get_log("browser")
    chrome.get(path.as_uri())


def complaints(chrome: webdriver.Chrome) -> list[str]:
    """Errors in the console since the last look."""
    return [entry["message"] for entry in chrome.get_log("browser") if entry["level"] == "SEVERE"]


def requests(chrome: webdriver.Chrome) -> list[str]:
    """What the page asked for besides itself, but for what it carries."""
    names = chrome.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    return [name for name in names if not name.startswith(("data:", "blob:"))]


def table_rows(chrome: webdriver.Chrome, name: str) -> list[list[str]]:
    """The cells of a table's body, as they are seen."""
    script = "return [...document.querySelectorAll(arguments[0])].map((r) => [...r.cells].map((c) => c.innerText))"
    return chrome.execute_script(script, f"#{name} tbody tr")
