"""Every command of every page does what it says, by path, for a Python that can't import the pack.

Small stand-ins have the names of its files.
"""

import argparse
import importlib
import shutil

import pytest
from modular_safety_lora.commands import VERBS
from modular_safety_lora.host.bases import origin
from modular_safety_lora.lab.server import PACK
from modular_safety_lora.modules.files import load_safety
from page_commands import (
    ELSEWHERE,
    OF_OTHERS,
    PAGES,
    SLOW,
    check,
    expanded,
    is_slow,
    ran,
    stand_ins,
    typed,
)
from stranger import BY_PATH, Stranger

pytestmark = pytest.mark.skipif(not shutil.which("bash"), reason="NO BASH to expand the commands")
TYPED = [each for each in PAGES if typed(each)]
RUN = [each for each in TYPED if not is_slow(each)]


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Stranger(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(scope="module")
def first(models, tmp_path_factory):
    """The folder of the stand-ins, which every page has its own of."""
    folder = tmp_path_factory.mktemp("pages") / "first"
    folder.mkdir()
    stand_ins(folder, models)
    return folder


@pytest.fixture(scope="module")
def done(stranger, first):
    return ran(stranger, first, RUN)


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_commands_of_a_page_run_as_they_stand(done, page):
    check([each for each in done if each[0].name == page.stem])


@pytest.mark.long
def test_slow_commands_run_as_they_stand(stranger, first):
    done = ran(stranger, first, TYPED, slow=True)
    assert {each[1] for _, each, _ in done} == set(SLOW)
    check(done)


@pytest.mark.parametrize("page", TYPED, ids=lambda page: page.stem)
def test_slow_commands_are_understood(page, tmp_path):
    for _, verb, *words in expanded(page, tmp_path):
        if verb in (*SLOW, *OF_OTHERS):
            parser = argparse.ArgumentParser()
            name = f"modular_safety_lora.commands.{verb.replace('-', '_')}"
            importlib.import_module(name).options(parser)
            parser.parse_args(words)


def test_every_verb_that_ships_is_shown_on_a_page(done):
    shown = {each[1] for _, each, _ in done if each[0] == BY_PATH}
    assert VERBS.keys() - shown == {"reproduce", *SLOW, *OF_OTHERS}, (
        "the first needs the repository"
    )


def test_the_guide_for_hosts_gives_what_the_settings_take(done, checkpoint):
    ((place, _, said),) = [
        each for each in done if each[0].name == "hosting" and "inspect" in each[1]
    ]
    seal = load_safety(place / "safety.safetensors", "safety").sha256
    assert f"    allowed_safety: {seal}\n" in said["out"] and "    signed_by: " in said["out"]
    assert f"    allowed_bases: {origin(checkpoint[0]).sha256}\n" in said["out"]


def test_help_names_what_was_started(done):
    (said,) = [each["out"] for place, _, each in done if place.name == "MSL_AuditPromptSet"]
    assert f"usage: python {BY_PATH} audit-prompts" in said
    assert f"    python {BY_PATH} audit-prompts --checkpoint C" in said


@pytest.mark.parametrize("shown", ELSEWHERE.values())
def test_what_is_shown_to_work_elsewhere_has_a_test_there(shown):
    assert not shown.startswith("tests/") or (PACK / shown).is_file()
