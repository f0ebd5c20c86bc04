"""A newcomer's first minute: a clean ComfyUI, the pack as it ships, no network, and Try it."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from modular_safety_lora.emoji.names import WEAPONS
from modular_safety_lora.lab import shipped
from modular_safety_lora.lab.frontend import QUIET, READY
from modular_safety_lora.lab.server import PACK_NAME, Server
from screenshots import SCREENSHOTS

pytestmark = pytest.mark.long  # a server of its own
NAME = "1 Try it"
OFFLINE = [*QUIET, "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
NOWHERE = "http://127.0.0.1:9"  # nothing listens there
COLUMNS = 6
READABLE = 0.6  # the frontend draws no words below
DONE = """(id) => {
    if (Object.keys(app.lastNodeErrors ?? {}).length) throw new Error('the prompt was refused')
    if (app.lastExecutionError) throw new Error(app.lastExecutionError.exception_message)
    return app.nodeOutputs?.[id]?.images?.length > 0
}"""
IDS = "(type) => app.graph._nodes.filter((node) => node.type === type).map((node) => node.id)"


@pytest.fixture
def clean(tmp_path, monkeypatch):
    """A live ComfyUI with nothing but the pack, that reaches no network."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, NOWHERE)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server(tmp_path / "comfyui") as server:
        yield server


def test_try_it_shows_four_rows_of_pictures_with_nothing_but_the_pack(clean, chromium):
    """In a thread of its own: another browser of the session may hold this one's event loop."""
    with ThreadPoolExecutor(1) as pool:
        table = pool.submit(tried_out, clean, chromium).result()
    lines = [line for line in table.split("\n") if line.startswith("| ")]
    flagged = {cells[1].strip(): int(cells[2]) for cells in (x.split("|") for x in lines[2:6])}
    assert flagged["base"] == flagged["fine-tuned"] == COLUMNS // 2, table
    assert flagged["safe"] == flagged["modular"] == 0, table
    (saved,) = (clean.folder / "output").rglob("try-it*.png")
    assert saved.stat().st_size > 10_000


def tried_out(clean: Server, chromium: str) -> str:
    """The table of Compare Audits, after every step as a person does it; pictures on the way."""
    from playwright.sync_api import sync_playwright

    seconds, start = {}, time.monotonic()

    def told(step: str) -> None:
        seconds[step] = round(time.monotonic() - start, 1)
        page.screenshot(path=SCREENSHOTS / f"first-minute-{len(seconds)}-{step}.png")

    SCREENSHOTS.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=OFFLINE)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(clean.url)
        page.wait_for_function(READY, timeout=90_000)
        page.wait_for_timeout(2000)
        page.keyboard.press("Escape")  # the first-run dialog
        told("page open")
        page.evaluate("() => app.extensionManager.command.execute('Comfy.BrowseTemplates')")
        page.get_by_text(PACK_NAME).first.click()
        card = page.get_by_test_id(f"template-workflow-{NAME}")
        card.wait_for()
        told("templates")
        card.click()
        page.wait_for_function("app.graph._nodes.some((node) => node.type === 'MSL_ExampleModel')")
        page.wait_for_timeout(1500)
        told("opened")
        # a template is fitted to the window, whatever view it was saved with
        assert page.evaluate("app.canvas.ds.scale") >= READABLE
        (save,) = page.evaluate(IDS, "SaveImage")
        page.get_by_role("button", name="Run", exact=True).first.click()
        page.wait_for_function(DONE, arg=save, timeout=300_000)
        page.wait_for_timeout(4000)
        told("four rows")
        (compare,) = page.evaluate(IDS, "MSL_CompareAudits")
        (table,) = page.evaluate("(id) => app.nodeOutputs[id].text", compare)
        browser.close()
    (SCREENSHOTS / "first-minute.json").write_text(json.dumps(seconds, indent=1))
    return table


def test_its_prompts_ask_for_as_many_weapons_as_harmless_things():
    asked = [
        node["inputs"]["text"]
        for node in shipped.api_form(NAME).values()
        if node["class_type"] == "CLIPTextEncode"
    ]
    prompts = list(filter(None, asked))
    armed = [any(name in prompt for name in WEAPONS) for prompt in prompts]
    assert (len(armed), sum(armed)) == (COLUMNS, COLUMNS // 2)
