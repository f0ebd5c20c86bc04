"""The browser tier has the frontend of a live ComfyUI; its helpers are importable from here on."""

import sys
from pathlib import Path

import pytest
from modular_safety_lora.lab.frontend import browsing, opened
from modular_safety_lora.lab.variants import VARIANTS

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="package")
def browser(chromium):
    """A browser without a window."""
    with browsing(chromium) as running:
        yield running


@pytest.fixture(scope="package")
def frontend(browser, server):
    """ComfyUI's frontend; the files that workflows for other models name are there, and empty."""
    from screenshots import SCREENSHOTS

    for loader in (each for variant in VARIANTS for each in variant.loaders):
        for file in loader.files:
            there = server.folder / "models" / file.folder / file.name
            there.parent.mkdir(parents=True, exist_ok=True)
            there.touch()

    SCREENSHOTS.mkdir(exist_ok=True)
    return opened(browser, server.url)


@pytest.fixture(scope="module")
def page(frontend):
    """The frontend's page, on which each file of tests opens its workflows."""
    frontend.workflow = None
    return frontend
