"""The browser tier has the frontend of a live ComfyUI; its helpers are importable from here on."""

import json
import sys
from pathlib import Path

import pytest
from modular_safety_lora.lab.frontend import browsing, opened
from modular_safety_lora.lab.shipped import WORKFLOWS

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="package")
def browser(chromium):
    """A browser without a window."""
    with browsing(chromium) as running:
        yield running


@pytest.fixture(scope="package")
def frontend(browser, server):
    """ComfyUI's frontend; the files that workflows name and that are not made are there, empty."""
    from screenshots import SCREENSHOTS

    for file in WORKFLOWS.glob("*.json"):
        for node in json.loads(file.read_text(encoding="utf-8"))["nodes"]:
            for each in node.get("properties", {}).get("models", ()):
                there = server.folder / "models" / each["directory"] / each["name"]
                there.parent.mkdir(parents=True, exist_ok=True)
                if not there.exists():
                    there.touch()

    SCREENSHOTS.mkdir(exist_ok=True)
    return opened(browser, server.url)


@pytest.fixture(scope="module")
def page(frontend):
    """The frontend's page, on which each file of tests opens its workflows."""
    frontend.workflow = None
    return frontend
