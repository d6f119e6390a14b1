"""A headless Chromium of the system, driven by selenium; both are skipped by name where they are missing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FACTS = """
const done = arguments[arguments.length - 1];
fetch(arguments[0]).then((r) => r.blob()).then((b) => embedFile(new File([b], 'x'))).then(
  (r) => done({ ...r, embedding: Array.from(r.embedding) }), (e) => done({ error: e.message }));
"""


@contextmanager
def chromium(profile: Path, *arguments: str, width: int = 1280, height: int = 1000) -> Iterator[Any]:
    """A browser for the length of the block.

    Args:
        profile: An empty folder.
        *arguments: More options of the browser.
        width: Of the window, in pixels.
        height: Of the window.
    """
    webdriver: Any = pytest.importorskip('selenium.webdriver')
    browser, driver = shutil.which('chromium'), shutil.which('chromedriver')
    if not browser or not driver:
        pytest.skip('chromium or chromedriver is missing: apt-get install chromium chromium-driver')
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in (
        '--headless=new', '--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu', '--hide-scrollbars',
        '--force-color-profile=srgb', f'--user-data-dir={profile}', f'--window-size={width},{height}', *arguments,
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    running = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    running.set_script_timeout(120)
    try:
        yield running
    finally:
        running.quit()


def wait(browser: Any, condition: str, seconds: float = 120) -> None:
    """Waits until a JavaScript expression holds."""
    support: Any = pytest.importorskip('selenium.webdriver.support.ui')
    support.WebDriverWait(browser, seconds, poll_frequency=0.1).until(
        lambda driver: driver.execute_script(f'return Boolean({condition})')
    )
