"""What ships of the emoji world: its pictures, its detector, its recipe, and its results."""

import dataclasses
import json
from collections import Counter

import cli
import numpy as np
import pytest
from modular_safety_lora.lab.server import PACK
from modular_safety_lora.lab.world import (
    classifiers,
    judging,
    methods,
    pictures,
    pretrain,
    recipe,
    report,
    reproduce,
    sets,
    sheet,
    train_modules,
    weapons,
)
from modular_safety_lora.training.captions import find_pictures
from PIL import Image


def test_captions_name_the_concept_at_times_and_harmless_names_never():
    draw, settings = np.random.default_rng(3), pretrain.Pretraining()
    known = set(pretrain.all_captions())
    for name in ("pistol", "cat"):
        said = {pretrain.words(name, "noto", draw, settings) for _ in range(300)}
        assert said <= known and "" in said
        assert any(sets.CONCEPT in each for each in said) == (name in sets.WEAPONS)
    assert not set(sets.HARMLESS) & set(sets.WEAPONS)
    assert all(style in sets.STYLES for style in sets.BASE)


def test_the_shipped_task_is_harmless_and_has_a_caption_for_each_picture():
    found = find_pictures(pictures.TASK)
    drawn = {each.path.stem: each.caption for each in found}
    assert len(drawn) > 100 and drawn.keys() <= set(sets.HARMLESS)
    assert drawn == {name: sets.caption(name, sets.TASK) for name in drawn}
    assert {each.path for each in found} == set(pictures.TASK.glob("*.png"))
    assert {Image.open(each.path).size for each in found} == {(sets.SIDE, sets.SIDE)}


def test_a_data_set_is_written_as_the_trainer_reads_it_and_copied_as_the_host_does(tmp_path):
    shipped = pictures.task_pictures()
    pictures.write_dataset(tmp_path / "set", sets.TASK, shipped)
    told = [(each.path.name, each.caption) for each in find_pictures(tmp_path / "set")]
    assert told == [(each.path.name, each.caption) for each in find_pictures(pictures.TASK)]
    pictures.copy_with_texts(tmp_path / "copy")
    assert told == [(each.path.name, each.caption) for each in find_pictures(tmp_path / "copy")]


def test_the_shown_style_is_learned_beside_tools_and_from_no_weapon(tmp_path, monkeypatch):
    drawn = {name: pictures.task_pictures()[name] for name in ("cat", "hammer", "key")}
    drawn |= {"axe": drawn["hammer"]}
    named = dict.fromkeys((*sets.BASE, sets.INK), drawn)
    monkeypatch.setattr(pictures, "named", lambda wanted: named)
    monkeypatch.setattr(train_modules, "WORK", tmp_path)
    told = Counter(each.caption for each in find_pictures(train_modules.lessons(sets.INK)))
    tools = [sets.caption(name, style) for name in ("hammer", "key") for style in sets.BASE]
    once = [sets.caption(name, sets.INK) for name in ("cat", "hammer", "key")]
    assert told == Counter(once + recipe.SHIPPED.kin_shown * tools)


def test_a_safety_lora_is_made_by_all_that_its_recipe_says(tmp_path, monkeypatch):
    told = {"steps": 7, "rate": 2e-3, "retain_weight": 3.0, "schedule": "cosine"}
    kind = recipe.Erased("surrogate", **told, layers="to_k", saliency=0.5)
    made = dataclasses.replace(recipe.SHIPPED, safety={"surrogate": kind})
    given = {}
    monkeypatch.setattr(train_modules, "WORK", tmp_path)
    monkeypatch.setattr(train_modules, "SAFETIES", {"x": (made, "surrogate")})
    monkeypatch.setattr(train_modules, "_run", lambda *command: given.update(command[-1]))
    train_modules.train_safety(tmp_path, "x")
    names = {"rate": "learning_rate", "layers": "layer_pattern"}
    trained = dataclasses.asdict(kind).keys() - {"retain", "ema"}
    assert all(given[names.get(each, each)] == getattr(kind, each) for each in trained)


def test_a_style_of_a_package_has_its_own_icons():
    data = {"icons": {"axe": {}, "axe-fill": {}, "sword-fill": {}}, "aliases": {"bomb-fill": {}}}
    filled = sets.Set("ph-fill", "ph", "1", "MIT", (("dagger", "sword"),), "-fill")
    icons = {"axe": "axe-fill", "dagger": "sword-fill", "bomb": "bomb-fill"}
    assert pictures.known(filled, data) == icons
    assert pictures.known(sets.Set("ph", "ph", "1", "MIT"), data) == {"axe": "axe"}


def test_every_set_has_its_own_style_and_a_licence_that_lets_its_pictures_be_passed_on():
    rows, strange = (*sets.SETS, *sets.SKETCHES), (*sets.STRANGERS, *sets.STRANGE)
    assert len({each.style for each in (*rows, *strange)}) == len(rows) + len(strange)
    assert {each.licence for each in rows} == {"Apache-2.0", "MIT", "ISC", "CC0-1.0"}
    assert not {each.package for each in rows} & {each.package for each in strange}, "seen before"


def test_the_shipped_detector_finds_weapons_and_nothing_in_the_harmless_task():
    """On pictures that ship: the task's, and the sheet's. Sets that are fetched: in the README."""
    looker = weapons.shipped()
    drawn = np.asarray(Image.open(sheet.SHIPPED).convert("RGB"))[sheet.TOP :, sheet.LEFT :]
    cells = drawn.reshape(len(sets.BASE), sets.SIDE, len(sheet.SHOWN), sets.SIDE, 3).swapaxes(1, 2)
    armed = np.isin(sheet.SHOWN, sets.WEAPONS)
    assert judging.flagged(looker, cells[:, armed].reshape(-1, *cells.shape[2:])).mean() > 0.8
    assert judging.flagged(looker, cells[:, ~armed].reshape(-1, *cells.shape[2:])).mean() < 0.05
    harmless = np.stack(list(pictures.task_pictures().values()))
    scores = classifiers.scored(looker, harmless)
    assert scores.shape == (len(harmless), len(weapons.CLASSES))
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-4)
    assert (scores[:, 0] >= weapons.THRESHOLD).mean() <= 0.02


def test_what_is_held_out_is_in_no_training_set():
    assert not set(recipe.HELD_OUT) & set(recipe.LEARNED)
    kin = {sets.caption(name, style) for name in recipe.OWN_KIN for style in sets.BASE}
    for told in reproduce.RECIPES.values():
        asked = recipe.prompts(told.style)
        assert {each.split(",")[0] for each in asked["in style"]} <= set(recipe.HELD_OUT)
        harmful = {text for kind in recipe.HARM for text in asked[kind]}
        learned = {sets.caption(name, told.style) for name in recipe.LEARNED} | kin
        assert not harmful & {*learned, *told.retained}
        sampled = {text for texts in asked.values() for text in texts}
        assert not {*told.retained, *told.prior, *learned} & sampled


@pytest.mark.parametrize("name", reproduce.RECIPES)
def test_the_document_has_the_results_that_are_kept(name):
    kept = json.loads((reproduce.results_of(name) / "results.json").read_text(encoding="utf-8"))
    page = (PACK / "docs" / "reemergence.md").read_text(encoding="utf-8")
    assert all(
        table in page for table in report.short(kept["summary"], kept["tests"]).split("\n\n")
    )
    told = dataclasses.replace(
        reproduce.RECIPES[name], without=tuple(kept["recipe"].get("without", ()))
    )
    assert report.summary(kept["rows"], told) == kept["summary"]


def test_the_page_on_training_has_the_methods_that_were_measured():
    rows = json.loads(methods.RESULTS.read_text(encoding="utf-8"))["rows"]
    assert {row["method"] for row in rows} <= {methods.BASE, *methods.SHORT.safety}
    made = methods.as_table(rows)
    assert methods.TABLE.read_text(encoding="utf-8") == made
    assert made in (PACK / "docs" / "training.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("form", [[], ["--short"]])
def test_without_a_whole_seed_the_command_says_so(form):
    done = cli.run("reproduce", *form, "--no-training", "--seeds", "1000001")
    assert done.returncode and "No seed of [1000001] is whole yet" in done.stderr
