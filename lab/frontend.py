"""ComfyUI's own frontend in a real browser, for its tests and for pictures of workflows."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from .server import PACK_NAME

NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "msedge",
)
PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
)
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-sync",
]
QUIET_FOR_A_WHILE = """async () => {
    for (let turn = 0; turn < 3; turn++) {
        await new Promise((done) => setTimeout(done, 80))
        await new Promise((done) => requestIdleCallback(() => requestAnimationFrame(done)))
    }
}"""
READY = "!!(window.app?.vueAppReady && LiteGraph.registered_node_types['MSL_ModularMerge'])"


def chromium() -> str | None:
    """The Chromium or Chrome of this machine."""
    found = [path for path in map(shutil.which, NAMES) if path] + [
        path for path in PLACES if Path(path).exists()
    ]
    return found[0] if found else None


@contextlib.contextmanager
def browsing(executable: str) -> Iterator:
    """A Playwright browser without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=executable, args=QUIET)
        yield running
        running.close()


def opened(browser, url: str):
    """A page with ComfyUI's frontend, ready to use; `console` gathers what it logs."""
    page = browser.new_page(viewport={"width": 1700, "height": 1000})
    page.asked = []
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(url)
    page.wait_for_function(READY, timeout=90_000)
    page.wait_for_load_state("networkidle")
    settle(page)
    page.keyboard.press("Escape")  # the first-run dialog
    settle(page)
    page.evaluate("async () => app.extensionManager.setting.set('Comfy.Minimap.Visible', false)")
    page.console = []
    page.on("console", lambda line: page.console.append((line.type, line.text)))
    return page


def open_workflow(page, name: str | None) -> None:
    """Open a shipped workflow from the Templates' address, unless it is open.

    None empties the graph.
    """
    if name is None:
        page.evaluate("() => app.graph.clear()")
        page.workflow = None
    elif getattr(page, "workflow", None) != name:
        page.console.clear()
        address = f"/api/workflow_templates/{PACK_NAME}/{name}.json"
        page.evaluate(
            "async (address) => app.loadGraphData(await (await fetch(address)).json())", address
        )
        settle(page)
        page.workflow = name


def settle(page) -> None:
    """Wait until the frontend has asked the server for nothing, and done nothing, for a while."""
    known = None
    while known != len(page.asked):
        known = len(page.asked)
        page.evaluate(QUIET_FOR_A_WHILE)


def api_form(page, name: str) -> dict:
    """A shipped workflow as the frontend sends it to the server."""
    open_workflow(page, name)
    return page.evaluate("async () => (await app.graphToPrompt()).output")
