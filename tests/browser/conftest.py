"""The browser tier has the frontend of a live ComfyUI; its helpers are importable from here on."""

import sys
from pathlib import Path

import pytest
from modular_safety_lora.lab.frontend import browsing, opened

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="module")
def browser(chromium):
    """A browser without a window."""
    with browsing(chromium) as running:
        yield running


@pytest.fixture(scope="module")
def page(browser, server):
    """ComfyUI's frontend."""
    from looking import SCREENSHOTS

    SCREENSHOTS.mkdir(exist_ok=True)
    return opened(browser, server.url)
