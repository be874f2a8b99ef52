"""Chromium through Playwright; every test here is skipped, with the reason, where there is none."""

import contextlib
import shutil

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
OPTIONS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="session")
def chromium():
    """A running browser."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on PATH")
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install -e '.[test]'")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=OPTIONS)
        yield browser
        browser.close()


@contextlib.contextmanager
def tabs(chromium):
    """open_file(path, width=1440) opens a file of the report; a request that leaves it, or an error, fails the test."""
    context, wrong = chromium.new_context(offline=True, viewport={"width": 1440, "height": 900}), []

    def open_file(path, width=1440):
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": 900})
        page.on("console", lambda message: message.type == "error" and wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: request.url.startswith(("file:", "data:", "blob:")) or wrong.append(request.url))
        page.goto(path.as_uri())
        return page

    yield open_file
    context.close()
    assert not wrong


@pytest.fixture
def tab(chromium):
    """tab(path, width=1440), as `tabs` says it, for one test."""
    with tabs(chromium) as open_file:
        yield open_file


@pytest.fixture(scope="module")
def kept_tab(chromium):
    """The same for a page that a file's tests share: opening one with its figures takes seconds."""
    with tabs(chromium) as open_file:
        yield open_file
