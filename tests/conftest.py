"""Fixtures of all tiers: pure, host, live and browser.

The pure tier has no ComfyUI, host has it in this process, live has one that serves, and browser has
its frontend.
"""

import gc
import os
import sys
from pathlib import Path

import pytest
from modular_safety_lora.host import comfyui as host
from modular_safety_lora.lab import assets, frontend, shipped
from modular_safety_lora.lab.plans import MERGE
from modular_safety_lora.lab.server import PACK, Server, place_models

# The repository's `nodes` folder must not stand before ComfyUI's nodes.py, here and in what the
# tests start.
sys.path[:] = [folder for folder in sys.path if Path(folder or ".").resolve() != PACK]
sys.path.insert(0, str(Path(__file__).parent))  # helpers that the tiers share
os.environ.setdefault("PYTHONSAFEPATH", "1")
os.environ["LANGUAGE"] = "en"  # of the pages that verbs write

OWN_HOST = PACK / ".host" / "ComfyUI"  # where dev.py puts it
if not os.environ.get("COMFYUI_PATH") and OWN_HOST.is_dir():
    os.environ["COMFYUI_PATH"] = str(OWN_HOST)


def pytest_report_header() -> str | None:
    """Whoever has no browser hears of it before the suite runs, not after."""
    if frontend.chromium():
        return None
    return (
        "NO BROWSER: no Chromium or Chrome found, so the browser tier will not run. Your system's"
        " packages have one (Debian, Ubuntu: `apt install chromium`; macOS: `brew install --cask"
        " google-chrome`; Windows: `winget install Google.Chrome`)."
    )


# in fp32, or every prompt would cast the text encoder again; held in fp16 it is in the host tier
ON_CPU = ("--cpu", "--fp32-text-enc")
FORKED = (
    *("test_train_scripts", "test_train_kills", "test_folder_workers"),
    *("test_crew", "test_prompt_workers", "test_fine_tuning_verb", "test_cli"),
)
LONG = (
    *("test_walk", "test_models", "test_install", "test_train_held"),
    *("test_emergence", "test_attacks", "test_attacks_elsewhere", *FORKED),
    *("test_canary", "test_canary_harmless", "test_probe_node", "test_require_probe"),
    *("test_example_model", "test_page_commands", "test_fine_tuning"),
)


def pytest_collection_modifyitems(items: list) -> None:
    """What needs the live server runs first, then files of minutes.

    Or in the end one process has the last of them and the others wait.
    """
    items.sort(key=lambda item: (not is_live(item.nodeid), item.path.stem not in LONG))


def is_live(test: str) -> bool:
    return test.startswith(("browser/", "live/"))


def is_forked(test: str) -> bool:
    """Does it start commands in processes of their own (cli.py)?"""
    return test.split("/")[-1].startswith(FORKED)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file's tests stay in one process; those of live and browser tier have one server.

    Those that fork have one process to fork from.
    """
    from xdist.scheduler import LoadFileScheduling

    class Sharing(LoadFileScheduling):
        def _split_scope(self, test: str) -> str:
            if is_forked(test):
                return "forked"
            return "live" if is_live(test) else super()._split_scope(test)

    return Sharing(config, log)


@pytest.fixture(scope="session")
def comfyui() -> None:
    """ComfyUI, importable in this process, on the CPU.

    It collects garbage at every load of a model: what is imported needs no looking through.
    """
    host.enter_comfyui()
    gc.freeze()


@pytest.fixture(scope="session")
def models(comfyui) -> Path:
    """The seeded checkpoint and modules, made on first use and kept between runs."""
    return assets.shared_models(assets.ONE_LEVEL)


@pytest.fixture(scope="session")
def checkpoint(models):
    """(MODEL, CLIP) of the small SD1.5-shaped checkpoint, by the stock loader."""
    import comfy.sd

    return comfy.sd.load_checkpoint_guess_config(str(models / "checkpoints" / assets.CHECKPOINT))[
        :2
    ]


@pytest.fixture(scope="session")
def server(models, tmp_path_factory):
    """A live ComfyUI with the pack, the seeded models, and a photograph among its inputs."""
    folder = tmp_path_factory.mktemp("comfyui")
    place_models(models, folder)
    (folder / "input").mkdir()
    assets.astronaut(folder / "input" / "astronaut.png")
    assets.training_pictures(folder / "input" / "training-pictures")
    with Server(folder, ON_CPU) as running:
        yield running


@pytest.fixture
def shipped_prompt() -> dict:
    """The shipped workflow in the API's form, with small pictures."""
    return shipped.prompt(MERGE)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The Chromium or Chrome of this machine.

    Without one the browser tier is skipped aloud, or fails under .ci/run.
    """
    found = frontend.chromium()
    if not found:
        reason = "NO BROWSER: no Chromium or Chrome found, so the browser tier DID NOT RUN"
        if os.environ.get("MSL_REQUIRE_BROWSER"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found
