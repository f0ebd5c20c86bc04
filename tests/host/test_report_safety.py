"""Report Safety LoRA on the example that ships: pictures, harm, tuning, layers, and the seal."""

import json
from pathlib import Path

import cli
import comfy.model_management
import folder_paths
import numpy as np
import pytest
import torch
from modular_safety_lora.audit import censor
from modular_safety_lora.emoji import checkpoint, files, story
from modular_safety_lora.evaluation import run as evaluation
from modular_safety_lora.host.comfyui import load_checkpoint
from modular_safety_lora.host.prompts import encode_texts
from modular_safety_lora.host.sampling import make_picture
from modular_safety_lora.host.sampling_settings import Sampling
from modular_safety_lora.merge.entries import Task
from modular_safety_lora.modules import short_report
from modular_safety_lora.modules.errors import ModuleFileError, SafetyError
from modular_safety_lora.modules.files import load_safety, load_task, save_module
from modular_safety_lora.nodes.load import LoadSafetyLora
from modular_safety_lora.nodes.report_safety import ReportSafetyLora
from modular_safety_lora.nodes.seal import SealSafetyLora
from modular_safety_lora.reporting import run as reporting
from PIL import Image

pytestmark = pytest.mark.usefixtures("one_thread")
STEPS = 10
ASKED = {
    "preset": story.PRESET,
    "pictures_per_prompt": 1,
    "prompts_per_kind": 1,
    "steps": STEPS,
    "cfg": story.GUIDANCE,
    "scheduler": story.SCHEDULER,
    "width": 96,
    "height": 96,
    "held_out": "axe, flat",
    "near": "hammer, flat",
    "far": "taxi, blob",
}


@pytest.fixture(scope="module")
def parts(comfyui, tmp_path_factory):
    with torch.inference_mode():  # as the host runs nodes
        return load_checkpoint(checkpoint.made_in(tmp_path_factory.mktemp("base")))


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """The node's results, kept for the whole file: later runs go on from them."""
    folder, before = tmp_path_factory.mktemp("output"), folder_paths.get_output_directory()
    folder_paths.set_output_directory(str(folder))
    yield folder
    folder_paths.set_output_directory(before)


def safety():
    return load_safety(files.FOLDER / files.SAFETY, files.SAFETY)


def task(ending: str = ""):
    name = files.task_file("firefox", ending)
    return Task(load_task(files.FOLDER / name, name))


def reported(parts, **more):
    with torch.inference_mode():
        return ReportSafetyLora.execute(*parts, safety=[safety()], **(ASKED | more))


@pytest.fixture(scope="module")
def given(parts, output):
    return reported(parts, tasks=[task()], on_top=[task(files.SEQUENTIAL)])


def test_it_says_what_is_taken_away_harmed_and_left_and_where_it_acts(given, output):
    words, text, _ = given.args
    report = json.loads(text)
    for kind, arms in (("told", 4), ("others", 4), ("near", 2), ("far", 2)):
        told = report["rates"][kind]
        assert told["pictures"] == 1 and len(told["arms"]) == arms
        assert all(len(each["rate_95"]) == 2 for each in told["arms"].values())
    told = report["rates"]["told"]["arms"]
    assert told["base"]["flagged"] == 1
    assert report["rates"]["adversarial"]["pictures"] == 0
    assert report["harm"]["near"]["rate"] is not None and not report["not_made"]
    acts = report["function"]["acts"]
    assert "joint attention" in acts and "text encoder" not in acts  # esd-x on SD3's blocks
    assert all(each["weights"] > 0 and each["told"] > 0 for each in acts.values())
    changed = report["function"]["changed"]
    assert changed["told"] > changed["far"] > 0 and changed["adversarial"] is None
    assert words.startswith("**It ") and "(base 100 %)" in words.split("\n")[0]
    page = next(output.rglob("safety_reports/*/report.html"))
    assert "What it harms" in page.read_text(encoding="utf-8")
    assert json.loads((page.parent / "report.json").read_text(encoding="utf-8")) == report


def test_a_flagged_picture_is_blurred_on_disk_and_so_in_the_grid(given, parts, output):
    model, clip, vae = parts
    folder = next(output.rglob("safety_reports/*/base"))
    rows = json.loads((folder / "report.json").read_text(encoding="utf-8"))["images"]
    row = next(each for each in rows if each["flagged"])
    texts = encode_texts(clip, [row["prompt"]])
    how = Sampling(STEPS, story.GUIDANCE, scheduler=story.SCHEDULER)
    with torch.no_grad():
        both = texts[row["prompt"]], texts[""]
        made = make_picture(model, vae, *both, how, seed=row["seed"], size=(96, 96))
    hidden = censor.apply(made[None], {"images": [row]}, "blur")[0].numpy()
    kept = np.asarray(Image.open(folder / row["picture"])) / 255.0
    assert np.abs(kept - hidden).max() < 0.01 and np.abs(kept - made.numpy()).mean() > 0.02
    shown = given.args[2]
    assert shown.ndim == 4 and shown.shape[0] == 1 and shown.max() <= 1.0
    assert len(given.ui["images"]) == 1 and given.ui["text"][0] == given.args[0]


def test_a_second_run_makes_no_picture_again(given, parts, output, monkeypatch):
    monkeypatch.setattr(evaluation, "make_picture", None)
    again = reported(parts, tasks=[task()], on_top=[task(files.SEQUENTIAL)])
    assert json.loads(again.args[1])["rates"] == json.loads(given.args[1])["rates"]


def test_a_stopped_run_is_marked_partial_and_cannot_be_sealed(
    given, parts, output, loras, monkeypatch
):
    ended = comfy.model_management.InterruptProcessingException

    def stop(*_, **__):
        raise ended()

    monkeypatch.setattr(reporting, "in_function", stop)
    with pytest.raises(ended):
        reported(parts)
    file = next(output.rglob("safety_reports/*/report.json"))
    report = json.loads(file.read_text(encoding="utf-8"))
    assert report["partial"] and report["short"] is None and report["function"] is None
    assert "<b>Partial:</b>" in file.with_name("report.html").read_text(encoding="utf-8")
    with pytest.raises(ModuleFileError, match="it is partial"):
        SealSafetyLora.execute(files.SAFETY, save_as="x", report=json.dumps(report))


@pytest.fixture
def loras(tmp_path):
    before = list(folder_paths.folder_names_and_paths["loras"][0])
    found = folder_paths.folder_names_and_paths["loras"][0]
    found[:] = [str(tmp_path), str(files.FOLDER)]
    yield tmp_path
    found[:] = before


def test_its_short_form_is_sealed_in_and_shown_by_the_loader(given, loras):
    sealed, digest = SealSafetyLora.execute(files.SAFETY, save_as="new", report=given.args[1]).args
    assert sealed[0].prompts == safety().prompts and digest != safety().sha256
    loaded = LoadSafetyLora.execute("new.safetensors", digest)
    line = loaded.args[2]
    assert line.startswith(f"{story.PRESET}: ") and "of 1 picture as told" in line
    assert "base 100 %" in line and line[1:] in loaded.ui["report"][0]
    without = {key: each for key, each in safety().metadata.items() if key != short_report.KEY}
    save_module(loras / "bare.safetensors", safety().tensors, without, "safety")
    bare = LoadSafetyLora.execute("bare.safetensors")
    assert bare.args[2] == "no report" and bare.ui["report"] == ["No report"]
    with pytest.raises(ModuleFileError, match="already. Load it as it is, or give its report"):
        SealSafetyLora.execute(files.SAFETY, concept="x", strength=1.0, save_as="other")


def test_what_cannot_be_reported_says_why(parts, output):
    model, clip, vae = parts
    with pytest.raises(ValueError, match="2 safety LoRAs are connected"):
        ReportSafetyLora.execute(*parts, safety=[safety(), safety()], **ASKED)
    with pytest.raises(ValueError, match="both held out and trained on"):
        reported(parts, held_out=safety().prompts[0].upper())
    patched = model.clone()
    patched.patches = {"diffusion_model.x": []}
    with pytest.raises(ValueError, match="LoRAs on this model already"):
        reported((patched, clip, vae))
    other = Task(load_task(Path(files.FOLDER, files.task_file("ink")), "ink"))
    tensors = {f"unknown.{key}": value for key, value in other.module.tensors.items()}
    nowhere = Task(type(other.module)("no", "task", "0", {}, tensors))
    with pytest.raises(SafetyError, match="does not fit this model"):
        reported(parts, on_top=[nowhere])


@pytest.mark.long
def test_the_verb_writes_what_the_verb_seal_takes(comfyui, tmp_path):
    lists = {name: tmp_path / f"{name}.txt" for name in ("held_out", "near", "far")}
    for name, file in lists.items():
        file.write_text(ASKED[name], encoding="utf-8")
    base = checkpoint.made_in(tmp_path)
    asked = ["--held-out-file", "--near-file", "--far-file"]
    flags = [each for pair in zip(asked, lists.values(), strict=True) for each in pair]
    size = ["--width", 96, "--height", 96, "--steps", STEPS, "--scheduler", story.SCHEDULER]
    few = ["--pictures-per-prompt", 1, "--prompts-per-kind", 1, "--preset", story.PRESET]
    source = files.FOLDER / files.SAFETY
    where = ["--checkpoint", base, "--output", tmp_path / "out"]
    done = cli.run("report", source, *where, *flags, *size, *few)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("**") and "report.json" in done.stdout
    told = next(tmp_path.glob("out/*/report.json"))
    sealed = cli.run("seal", source, "--report", told, "--output", tmp_path / "new.safetensors")
    assert sealed.returncode == 0, sealed.stderr
    assert "of 1 picture as told" in cli.run("inspect", tmp_path / "new.safetensors").stdout
