"""The example that ships: its model, its LoRAs in the lists, its detector, and the operator."""

import contextlib
import shutil
from dataclasses import replace

import comfy.sd
import folder_paths
import numpy as np
import pytest
import torch
from modular_safety_lora.audit.detectors import registry
from modular_safety_lora.audit.presets import PRESETS, PresetError
from modular_safety_lora.commands import main
from modular_safety_lora.emoji import checkpoint, demo, files, names, story
from modular_safety_lora.host import bases
from modular_safety_lora.lab.server import PACK
from modular_safety_lora.lab.world import classifiers, pictures, weapons
from modular_safety_lora.merge.merge import Task, merge
from modular_safety_lora.merge.words import in_words
from modular_safety_lora.modules import short_report
from modular_safety_lora.modules.errors import SafetyError
from modular_safety_lora.modules.files import load_safety, load_task, save_module
from modular_safety_lora.nodes import audits
from modular_safety_lora.nodes.example_model import ExampleModel, offer_loras
from modular_safety_lora.nodes.load import LoadSafetyLora, LoadTaskLora, lora_names
from modular_safety_lora.nodes.merge import ModularMerge
from modular_safety_lora.nodes.nudity_audit import NudityAudit
from PIL import Image

import nodes

pytestmark = pytest.mark.usefixtures("one_thread")
# what an operator lists in allowed_bases
DIGEST = "592110f7d47246ffdf42d3ddea4b551d8289f0ae3bb4ecabcb807497353e4bdb"
STYLES = (names.INK, names.TASK)
LORAS = {files.task_file(style, how) for style in STYLES for how in ("", files.SEQUENTIAL)}
LORAS |= {files.SAFETY, files.THOROUGH}


@pytest.fixture(scope="module")
def loras():
    """The example's LoRAs in ComfyUI's lists."""
    before = list(folder_paths.folder_names_and_paths["loras"][0])
    offer_loras()
    yield
    folder_paths.folder_names_and_paths["loras"][0][:] = before


def drawn(model, clip, text="sunflower, noto"):
    encode = nodes.CLIPTextEncode().encode
    asked = encode(clip, text)[0], encode(clip, "")[0]
    latent = {"samples": torch.zeros(1, 16, 4, 4)}
    return nodes.KSampler().sample(model, 1, 1, 4.0, "euler", "simple", *asked, latent)[0]


def test_the_example_is_what_the_stock_loader_makes_of_its_checkpoint(tmp_path):
    model, clip, vae = ExampleModel.execute().args
    stock = comfy.sd.load_checkpoint_guess_config(str(checkpoint.made_in(tmp_path)))
    assert bases.origin(model).sha256 == bases.origin(stock[0]).sha256 is not None
    seen = [drawn(*each)["samples"] for each in ((model, clip), stock[:2])]
    assert torch.equal(*seen) and seen[0].isfinite().all()
    assert vae.decode(seen[0]).shape == (1, 32, 32, 3)


def test_its_loras_are_listed_behind_all_others_and_load(loras):
    assert {*lora_names("safety"), *lora_names("task")} >= LORAS
    assert {path.name for path in files.FOLDER.iterdir()} == LORAS
    assert folder_paths.get_folder_paths("loras")[-1] == str(files.FOLDER)
    assert all(name.startswith("example-") and "/" not in name for name in LORAS)
    for name in (files.SAFETY, files.THOROUGH):
        (module,), _, line = LoadSafetyLora.execute(name).args
        assert module.metadata["msl.concept"]
        assert line.startswith(f"{story.PRESET}: ") and "; base 97 to 100 %; " in line
    assert LoadTaskLora.execute(files.task_file("ink")).args[0]


def test_its_detector_is_a_preset_without_any_settings():
    assert story.PRESET in audits.preset_names()
    preset = PRESETS[story.PRESET]
    assert preset.thresholds == {names.CONCEPT: weapons.THRESHOLD}
    assert registry.classes_of(preset.detector) == weapons.CLASSES
    shown = torch.from_numpy(np.stack(list(pictures.task_pictures().values())[:4]) / 255.0).float()
    assert NudityAudit.execute(shown, preset=story.PRESET).args[1] is True


def test_a_detector_that_ships_stays_loaded_when_settings_are_read():
    found = registry.find(story.PRESET)
    registry.register_entries({}, PACK)
    assert registry.find(story.PRESET) is found


def test_settings_give_its_names_to_nothing_else(enforce):
    entry = {"kind": "classifier", "file": "mine.onnx", "classes": ["weapon"]}
    enforce({"detectors": {story.PRESET: entry}})
    with pytest.raises(ValueError, match="'emoji weapons' in the settings: this name is taken"):
        audits.presets()
    enforce({"audit_presets": {story.PRESET: {"thresholds": {"FACE_MALE": 1.0}}}})
    with pytest.raises(PresetError, match="'emoji weapons' is taken by a shipped preset"):
        audits.presets()


@pytest.mark.parametrize(
    ("more", "refused"),
    [
        ({}, ""),
        ({"allowed_bases": [DIGEST]}, ""),
        ({"allowed_bases": ["0" * 64]}, f"its digest begins with {DIGEST[:12]}"),
        ({"allowed_safety": ["0" * 64]}, "is not on this ComfyUI"),
    ],
)
def test_an_operators_settings_hold_for_the_example_as_for_any_model(loras, enforce, more, refused):
    enforce({"require_lock": True, **more})
    model, clip, _ = ExampleModel.execute().args
    assert bases.origin(model).sha256 == DIGEST
    with pytest.raises(SafetyError, match="went through Modular Merge"):
        drawn(model, clip)
    merged = ModularMerge.execute(model, LoadSafetyLora.execute(files.SAFETY).args[0]).args[0]
    with pytest.raises(SafetyError, match=refused) if refused else contextlib.nullcontext():
        assert drawn(merged, clip)["samples"].isfinite().all()


@pytest.fixture
def short(monkeypatch):
    """A prompt of each set: crossed swords, and an umbrella; whole: test_page_commands.py."""
    armed, harmless = (list(each.prompts) for each in story.SETS)
    few = [armed[2:3], harmless[:1]]
    kept = (replace(each, prompts=tuple(some)) for each, some in zip(story.SETS, few, strict=True))
    monkeypatch.setattr(demo, "SETS", tuple(kept))


@pytest.mark.long  # README's command makes a page too
def test_the_demo_draws_its_models_and_writes_its_page(short, tmp_path, capsys):
    assert main(["demo", "--output", str(tmp_path)]) == 0
    assert "Done in" in capsys.readouterr().out
    written = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert all(title in written for title, _ in story.ARMS.values())
    drawn = {path.parent.name for path in tmp_path.rglob("*.png") if path.parent != tmp_path}
    assert len(list(tmp_path.rglob("*.png"))) >= 2 * len(story.ARMS), drawn
    (row,) = story.rows_of(tmp_path, story.SETS[0])["safe"]
    shown = np.array(Image.open(row["file"]).convert("RGB"))[None]
    (best,) = classifiers.scored(weapons.shipped(), shown).argmax(axis=1)
    assert weapons.CLASSES[best] == "sunflower"


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (0.0, "this safety LoRA changes nothing"),
        pytest.param(0.4, 'The page says of "Made safe"', marks=pytest.mark.long),
    ],
)
def test_the_demo_fails_if_its_safety_lora_takes_nothing_away(
    short, tmp_path, monkeypatch, capsys, left, said
):
    loras = shutil.copytree(files.FOLDER, tmp_path / "loras")
    module = load_safety(files.FOLDER / files.THOROUGH, files.THOROUGH)
    weak = {name: left * each for name, each in module.tensors.items()}
    told = {key: each for key, each in module.metadata.items() if key != short_report.KEY}
    seal = save_module(loras / files.THOROUGH, weak, told, "safety", overwrite=True)
    name = files.task_file(names.INK, files.SEQUENTIAL)
    on_top = load_task(files.FOLDER / name, name)  # it names the seal it was trained on
    about = {**on_top.metadata, "msl.safety_sha256": seal}
    save_module(loras / name, on_top.tensors, about, "task", overwrite=True)
    monkeypatch.setattr(demo, "FOLDER", loras)
    assert main(["demo", "--output", str(tmp_path)]) == 1
    assert said in capsys.readouterr().err


def test_modular_merge_says_of_them_what_the_page_of_the_demo_tells():
    """Two styles hold; what was learned on top asks for an audit, or stops the run."""

    def safety(name):
        return load_safety(files.FOLDER / name, name)

    model, clip, _ = ExampleModel.execute().args
    _, (both, on_top) = demo.models(model, clip, safety(files.THOROUGH))
    assert all(each.startswith("**The safety LoRA holds**") for each in (both, on_top))
    assert "audit the pictures" in on_top and "audit the pictures" not in both
    name = files.task_file(names.TASK, files.SEQUENTIAL)
    stopped = merge(
        model, [safety(files.SAFETY)], [Task(load_task(files.FOLDER / name, name))], clip
    )
    assert in_words(stopped.report).startswith("**Sampling will stop")


def test_no_folder_of_the_pack_is_taken_for_one_of_workflows_but_workflows():
    """ComfyUI looks for templates in folders of these names, and serves all that is in them."""
    looked_in = {"example_workflows", "example", "examples", "workflow", "workflows"}
    assert {path.name for path in PACK.iterdir() if path.is_dir()} & looked_in == {"workflows"}
