"""Notebook 04 in a real JupyterLab: the kernel answers the sliders, and a choice by hand is kept."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest

from osdtw_lib.config.paths import PROJECT
from osdtw_lib.explorer.load import load_landscape
from osdtw_lib.explorer.state import in_words
from osdtw_lib.stages.selection import proposed, selection

BOOK = "04_proxy_explorer.ipynb"
QUIET = {"@jupyterlab/apputils-extension/notification.jupyterlab-settings": {"fetchNews": "false", "checkForUpdates": False}}


@pytest.fixture
def lab(chromium, finished_copy, tmp_path):
    """(address, run): JupyterLab on the loopback, without a token, over a copy of notebook 04 on a copy of the results."""
    run = finished_copy()
    notebook = nbformat.read(PROJECT / "notebooks" / BOOK, as_version=4)
    (cell,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    cell.source = f'params_file = "{tmp_path / "small.yaml"}"'
    nbformat.write(notebook, tmp_path / BOOK)
    for name, values in QUIET.items():
        path = tmp_path / "settings" / name
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(values))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folders = {f"JUPYTER_{n}_DIR": str(tmp_path / n) for n in ("CONFIG", "RUNTIME")}
    environment = os.environ | folders | {"JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings"), "JUPYTER_PREFER_ENV_PATH": "1"}
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0"]
    options += ["--IdentityProvider.token=", "--ServerApp.password=", f"--ServerApp.root_dir={tmp_path}"]
    with open(tmp_path / "lab.log", "w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options], cwd=tmp_path, env=environment, stdout=log, stderr=log
        )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait(lambda: urllib.request.urlopen(f"{address}/api/status", timeout=2), server, tmp_path / "lab.log")
        yield address, run
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
        shutil.rmtree(tmp_path / "settings", ignore_errors=True)


def _wait(reached, server, log, seconds=90):
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        try:
            return reached()
        except OSError:
            time.sleep(0.3)
    raise AssertionError(f"JupyterLab did not start:\n{log.read_text()}")


def test_the_kernel_answers_the_keyboard_and_a_choice_is_kept(lab, chromium):
    address, run = lab
    page = chromium.new_page(viewport={"width": 1440, "height": 1000})
    page.goto(f"{address}/lab/tree/{BOOK}?reset")
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=90_000)
    page.get_by_text("| Idle").wait_for(timeout=60_000)  # what is run before the kernel is there is lost
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator("[data-command='runmenu:run-all']").click()
    # only what can be seen is drawn: go to the last cell
    readout = page.locator(".widget-html, .jupyter-widgets-html").filter(has_text=re.compile(r"C = \d+, w_A = "))
    _scroll_to(page, readout.first)
    landscape = load_landscape(run)

    def shows(depth, weight):
        words = re.sub(r"<.*?>", "", in_words(landscape.over_depth("damped", landscape.start_damping, weight).iloc[depth]))
        page.wait_for_function("words => document.body.innerText.includes(words)", arg=words, timeout=30_000)

    shows(2, 0.4)
    sliders = page.locator(".jp-OutputArea .noUi-handle")
    sliders.nth(0).focus()
    page.keyboard.press("ArrowLeft")
    shows(1, 0.4)
    sliders.nth(1).focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    shows(1, 0.43)

    shown = run.folder / "selection.json"
    page.get_by_role("button", name="use this choice").click()
    page.get_by_text("chosen by hand").first.wait_for(timeout=30_000)
    chosen = json.loads(shown.read_text())
    assert (chosen["shared_depth"], chosen["head_weight"], chosen["form"], chosen["chosen_by"]) == (1, 0.43, "damped", "hand")
    assert selection(run) == chosen
    page.get_by_role("button", name="back to the proxy's choice").click()
    page.get_by_text("Stage 2 uses C = 2").first.wait_for(timeout=30_000)
    assert json.loads(shown.read_text()) == proposed(run)
    page.close()


def _scroll_to(page, wanted, seconds=60):
    """Scroll the notebook down until the widget is there: JupyterLab draws only what is near the window."""
    end = time.monotonic() + seconds
    page.locator(".jp-Notebook").first.wait_for(timeout=60_000)
    while time.monotonic() < end:
        if wanted.count():
            wanted.scroll_into_view_if_needed()
            return
        page.locator(".jp-WindowedPanel-outer").first.evaluate("panel => { panel.scrollTop = panel.scrollHeight; }")
        page.wait_for_timeout(500)
    raise AssertionError(f"the explorer did not appear: {page.locator('.jp-Notebook').first.inner_text()[-2000:]}")
