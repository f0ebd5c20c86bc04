"""Prompt sets: read as published, made as KSampler makes them, kept row by row, gone on with after any stop."""

import json
import re
import sqlite3
import subprocess
import sys

import comfy.model_management
import comfy.sd
import comfy.utils
import comfy_extras.nodes_model_advanced
import folder_paths
import numpy as np
import pytest
import torch
from modular_safety_lora.audit.detectors import register
from modular_safety_lora.audit.presets import PRESETS, read_presets
from modular_safety_lora.audit.rules import Rules
from modular_safety_lora.audit.store import StoreError
from modular_safety_lora.demo import assets
from modular_safety_lora.evaluation.fingerprint import fingerprint
from modular_safety_lora.evaluation.prompt_set import Defaults, PromptSetError, read_prompts
from modular_safety_lora.evaluation.run import KEEP, Job, run
from modular_safety_lora.nodes.prompt_audit import AuditPromptSet, prompt_files
from modular_safety_lora.training.pictures import Sampling
from PIL import Image

I2P = (
    "prompt,categories,hard,inappropriate_percentage,nudity_percentage,q16_percentage,sd_safety_percentage,prompt_toxicity,"
    "lexica_url,sd_seed,sd_guidance_scale,sd_image_width,sd_image_height,sd_model\n"
)
ROWS = (
    '"a cat, asleep","sexual, shocking",0,10.0,60.5,1.0,2.0,0.1,x,2319341,7.5,64,96,1\n'
    '"a ""red"" car",violence,0,10.0,0.0,1.0,2.0,0.1,x,3969596299,7,64,64,1\n'
    '"a dog\non two lines",self-harm,1,10.0,,1.0,2.0,0.1,x,77,12,72,64,1\n'
)


@pytest.fixture
def i2p(tmp_path):
    file = tmp_path / "i2p.csv"
    file.write_text(I2P + ROWS, encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def parts(models):
    """(model, clip, vae) of the small checkpoint."""
    from modular_safety_lora.demo import assets
    from modular_safety_lora.training.cli import load_checkpoint

    yield load_checkpoint(models / "checkpoints" / assets.CHECKPOINT)
    comfy.model_management.unload_all_models()


def job(i2p, folder, preset="all", **more) -> Job:
    return Job("i2p", read_prompts(i2p), Rules(PRESETS[preset]), Sampling(2), folder, **more)


def audited(parts, job: Job) -> dict:
    """Run a job; its report."""
    summary = run(*parts, job)
    report = json.loads((job.folder / "report.json").read_text(encoding="utf-8"))
    assert report["summary"] == summary and report["unreadable"] == []
    return report


def test_the_columns_of_i2p_are_read_row_by_row(i2p):
    first, second, third = read_prompts(i2p)
    assert (first.text, first.seed, first.guidance, first.width, first.height) == ("a cat, asleep", 2319341, 7.5, 64, 96)
    assert first.categories == ("sexual", "shocking") and second.text == 'a "red" car' and second.seed == 3969596299
    assert third.text == "a dog\non two lines" and third.guidance == 12.0
    assert [each.key for each in (first, second, third)] == ["000001", "000002", "000003"]


def test_other_sets_columns_and_a_plain_text_are_read(tmp_path):
    file = tmp_path / "set.csv"
    file.write_text(
        "Case_Number,adv_prompt,evaluation_seed,evaluation_guidance\n12,one,5,\n7,two,,3\n", encoding="utf-8-sig"
    )
    one, two = read_prompts(file, Defaults(seed=100, guidance=9.0, width=70, height=512))
    assert (one.key, one.text, one.seed, one.guidance, one.width) == ("000012", "one", 5, 9.0, 64)
    assert (two.key, two.seed, two.guidance) == ("000007", 102, 3.0)
    text = tmp_path / "set.txt"
    text.write_text("a cat\n\n a dog, running \n", encoding="utf-8")
    assert [(each.text, each.seed) for each in read_prompts(text)] == [("a cat", 1), ("a dog, running", 3)]


@pytest.mark.parametrize("name", ["set.csv", "set.txt"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_only_line_ends_end_a_prompt(tmp_path, name, end):
    """U+2028, U+0085 and form feeds stand in published prompts; `splitlines` cuts there."""
    odd = "a cat\u2028on a\u0085mat\fasleep"
    lines = ["prompt", odd, "a dog"] if name.endswith("csv") else [odd, "a dog"]
    (tmp_path / name).write_bytes(end.join(lines).encode())
    assert [each.text for each in read_prompts(tmp_path / name)] == [odd, "a dog"]


def test_rows_are_chosen_by_category_and_by_a_column(i2p):
    assert [each.text for each in read_prompts(i2p, category="Sexual")] == ["a cat, asleep"]
    assert [each.key for each in read_prompts(i2p, where="nudity_percentage > 50")] == ["000001"]
    assert [each.key for each in read_prompts(i2p, where="nudity_percentage<=60.5")] == ["000001", "000002"]
    assert [each.key for each in read_prompts(i2p, where="hard=1", limit=5)] == ["000003"]
    assert len(read_prompts(i2p, limit=2)) == 2


@pytest.mark.parametrize(
    ("text", "more", "message"),
    [
        ("words\na cat\n", {}, "there is no column prompt or adv_prompt or text; there are words"),
        ("prompt,sd_seed\na,1\nb,x\nc,y\n", {}, "2 rows can't be read .first: row 2: the seed is 'x'"),
        ("prompt,width\na,20\n", {}, "row 1: a picture of 16 x 512 pixels is too small"),
        ("prompt,sd_seed\na,-1\n", {}, "the seed -1 is not in"),
        ("prompt\n\n", {}, "no prompt is left"),
        ("prompt,categories\na,b\n", {"category": "c"}, "no prompt is left of category 'c'"),
        ("prompt,id\na,1\nb,1\n", {}, "1 keys stand for several rows .first: 000001."),
        ("prompt\na\n", {"where": "b"}, "'b' is no condition"),
        ("prompt\na\n", {"where": "b > 1"}, "there is no column 'b'; there are prompt"),
    ],
)
def test_a_set_that_cannot_be_read_says_why(tmp_path, text, more, message):
    file = tmp_path / "set.csv"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(PromptSetError, match=message):
        read_prompts(file, **more)
    with pytest.raises(PromptSetError, match="can't be read as a prompt set"):
        read_prompts(tmp_path / "absent.csv")


def test_pictures_are_those_of_ksampler_with_the_rows_seed_guidance_and_size(parts, i2p, tmp_path):
    import nodes

    model, clip, vae = parts
    run(model, clip, vae, job(i2p, tmp_path / "run", keep="all, as they are"))
    for prompt in read_prompts(i2p):
        positive = nodes.CLIPTextEncode().encode(clip, prompt.text)[0]
        negative = nodes.CLIPTextEncode().encode(clip, "")[0]
        latent = nodes.EmptyLatentImage().generate(prompt.width, prompt.height)[0]
        sampled = nodes.KSampler().sample(
            model, prompt.seed, 2, prompt.guidance, "euler", "normal", positive, negative, latent
        )
        expected = nodes.VAEDecode().decode(vae, sampled[0])[0][0].detach().clamp(0, 1)
        kept = np.asarray(Image.open(tmp_path / "run" / "pictures" / f"{prompt.key}.png"))
        assert kept.shape == (prompt.height, prompt.width, 3)
        assert np.abs(kept / 255 - expected.numpy()).max() < 0.51 / 255 + 1e-4


def test_rows_reports_and_summary_say_the_same(parts, i2p, tmp_path):
    report = audited(parts, job(i2p, tmp_path / "run"))
    folder = tmp_path / "run"
    assert [row["prompt"] for row in report["images"]] == ["a cat, asleep", 'a "red" car', "a dog\non two lines"]
    assert report["summary"]["images"] == 3 and report["summary"]["categories"]["shocking"]["images"] == 1
    rows = sqlite3.connect(folder / "audit.sqlite").execute("select key, data from pictures order by key").fetchall()
    assert [json.loads(data) for _, data in rows] == report["images"]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Audit of i2p" in page and page.count("<svg") == 3
    assert not (folder / "pictures").exists(), "no picture is kept unless asked"


def test_a_stopped_run_goes_on_and_makes_nothing_twice(parts, i2p, tmp_path):
    whole = audited(parts, job(i2p, tmp_path / "whole"))
    made = []

    def stop(done, picture):
        made.append(done)
        if len(made) == 3:
            raise comfy.model_management.InterruptProcessingException()

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        run(*parts, job(i2p, tmp_path / "run", on_picture=stop))
    assert made == [0, 1, 2]
    resumed = []

    def watch(done, picture):
        resumed.append((done, picture is None))

    assert audited(parts, job(i2p, tmp_path / "run", on_picture=watch)) == whole
    assert resumed == [(2, True), (3, False)]


def rows_in(folder) -> int:
    return sqlite3.connect(folder / "audit.sqlite").execute("select count(*) from pictures").fetchone()[0]


def test_filters_and_limits_go_on_in_one_store_and_the_report_says_which(parts, i2p, tmp_path):
    folder, made = tmp_path / "run", []

    def over(**selection) -> dict:
        made.clear()
        chosen = Job("i2p", read_prompts(i2p, **selection), Rules(PRESETS["all"]), Sampling(2), folder, on_picture=count)
        return audited(parts, chosen)

    def count(done, picture):
        made.append(picture is not None)

    whole = over()
    few = over(limit=1)
    assert not any(made) and [row["key"] for row in few["images"]] == ["000001"] and rows_in(folder) == 3
    assert few["summary"]["images"] == 1 and few["summary"]["rows_left_out"] == 2
    assert few["summary"]["prompts"] | {"sha256": ""} == {
        "file": "i2p.csv", "sha256": "", "category": "", "where": "", "limit": 1, "selected": 1,
    }  # fmt: skip
    assert "limit 1" in (folder / "report.html").read_text(encoding="utf-8")
    violent = over(category="violence", where="hard = 0")
    assert not any(made) and [row["key"] for row in violent["images"]] == ["000002"] and rows_in(folder) == 3
    assert violent["summary"]["prompts"]["category"] == "violence" and violent["summary"]["prompts"]["where"] == "hard = 0"
    assert over() == whole and not any(made) and whole["summary"]["rows_left_out"] == 0


@pytest.mark.parametrize("name", ["hot.csv", "i2p.csv"])
def test_another_prompt_file_is_refused_by_name_and_deletes_nothing(parts, i2p, tmp_path, name):
    run(*parts, job(i2p, tmp_path / "run"))
    before = (tmp_path / "run" / "report.json").read_bytes()
    other = tmp_path / name
    other.write_text(I2P + ROWS.splitlines()[0].replace("2319341", "5") + "\n", encoding="utf-8")
    message = (
        rf"holds 3 rows of an audit made with another prompt file \(i2p.csv, \w{{12}}; now {name}, \w{{12}}\).*another name"
    )
    with pytest.raises(StoreError, match=message):
        run(*parts, job(other, tmp_path / "run"))
    assert rows_in(tmp_path / "run") == 3 and (tmp_path / "run" / "report.json").read_bytes() == before


def test_the_same_file_under_another_name_goes_on_and_other_defaults_do_not(parts, i2p, tmp_path):
    run(*parts, job(i2p, tmp_path / "run"))
    moved = i2p.rename(tmp_path / "moved.csv")
    assert run(*parts, job(moved, tmp_path / "run"))["prompts"]["file"] == "moved.csv"
    wider = Job("i2p", read_prompts(moved, Defaults(width=64)), Rules(PRESETS["all"]), Sampling(2), tmp_path / "run")
    with pytest.raises(StoreError, match=r"made with another row defaults width \(512; now 64\)"):
        run(*parts, wider)


def test_another_model_or_sampling_does_not_go_on_with_the_rows(parts, i2p, tmp_path, models):
    run(*parts, job(i2p, tmp_path / "run"))
    with pytest.raises(StoreError, match="made with another model"):
        run(*with_style(parts, models, 0.5, 0.5), job(i2p, tmp_path / "run"))
    changed = Job("i2p", read_prompts(i2p), Rules(PRESETS["all"]), Sampling(3), tmp_path / "run")
    with pytest.raises(StoreError, match="made with another sampling"):
        run(*parts, changed)
    with pytest.raises(StoreError, match="made with another preset"):
        run(*parts, job(i2p, tmp_path / "run", preset="strict"))


def with_style(parts, models, model_strength: float, clip_strength: float):
    """The parts with a LoRA on, by the stock loader."""
    lora = comfy.utils.load_torch_file(str(models / "loras" / assets.STYLE))
    return *comfy.sd.load_lora_for_models(parts[0], parts[1], lora, model_strength, clip_strength), parts[2]


def test_the_fingerprint_is_the_same_for_clones_and_another_for_each_change(parts, models, i2p, tmp_path):
    model, clip, vae = parts
    plain = fingerprint(model, clip, vae)
    assert fingerprint(model.clone(), clip.clone(), vae) == plain
    changed = [with_style(parts, models, *strengths) for strengths in ((0.5, 0.0), (0.6, 0.0), (0.0, 0.5), (0.5, 0.5))]
    found = [fingerprint(*each) for each in changed]
    assert len({plain, *found}) == 5
    shifted = comfy_extras.nodes_model_advanced.RescaleCFG().patch(model, 0.7)[0]
    assert fingerprint(shifted, clip, vae) != plain
    run(*changed[3], job(i2p, tmp_path / "run"))  # its patches are on the shared weights now
    assert [fingerprint(*each) for each in changed] == found and fingerprint(model, clip, vae) == plain


def test_flagged_pictures_are_kept_censored(parts, i2p, tmp_path, monkeypatch):
    from skimage.data import astronaut

    face = torch.from_numpy(astronaut().astype(np.float32) / 255)
    monkeypatch.setattr("modular_safety_lora.evaluation.run.make_picture", lambda *_: face)
    shown = []
    watched = {"on_picture": lambda done, picture: shown.append(picture)}
    report = audited(parts, job(i2p, tmp_path / "run", preset="faces", keep="flagged, censored", **watched))
    assert report["summary"]["flagged"] == 3 and report["images"][0]["picture"] == "pictures/000001.png"
    kept = np.asarray(Image.open(tmp_path / "run" / "pictures" / "000001.png"))
    x, y, w, h = report["images"][0]["detections"][0]["box"]
    assert (kept[y : y + h, x : x + w] != astronaut()[y : y + h, x : x + w]).mean() > 0.9
    assert (np.asarray(shown[1]) == kept).all(), "the preview is censored too"
    with pytest.raises(ValueError, match="keep is 'some'; it must be one of none"):
        job(i2p, tmp_path / "run", keep="some")


def test_both_opinions_run_on_the_rules_provider(parts, i2p, tmp_path):
    asked, named = [], {}

    class Nothing:
        version, classes, floor, batch, provider = "1", ("X",), 0.0, 8, "python"

        def detect(self, pictures):
            asked.append(self.name)
            return [[] for _ in pictures]

    def made(provider: str, threads: int) -> Nothing:
        found = Nothing()
        found.name = provider
        return found

    for name in ("one", "two"):
        register(name, Nothing.classes, made)
        named |= read_presets({name: {"detector": name, "thresholds": {"X": 0.5}}}, "file")
    rules = Rules(named["one"], named["two"], provider="openvino")
    summary = run(*parts, Job("i2p", read_prompts(i2p, limit=1), rules, Sampling(1), tmp_path / "run"))
    assert asked == ["openvino", "openvino"] and summary["second_opinion"]["neither"] == 1


VALUES = {
    "steps": 2, "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal", "first_seed": 0, "width": 64, "height": 64,
    "limit": 0, "keep": "none",
}  # fmt: skip


def test_the_node_runs_a_set_of_the_input_folder(parts, i2p, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path))
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "out"))
    assert AuditPromptSet.validate_inputs("i2p.csv") is True and "not in" in AuditPromptSet.validate_inputs("../i2p.csv")
    shipped = [name for name in AuditPromptSet.GET_SCHEMA().inputs[3].options if name.startswith("example: ")]
    assert len(read_prompts(prompt_files()[shipped[0]])) == 12
    output = AuditPromptSet.execute(*parts, "i2p.csv", "base", "all", **VALUES)
    report, chart, rate = output.args
    found = json.loads(report)
    assert found["summary"]["images"] == 3 and found["summary"]["lock_findings"] == []
    assert rate == found["summary"]["flagged_rate"] and chart.shape[2] == 1000
    assert (tmp_path / "out" / "audits" / "base" / "report.html").is_file()
    for name in ("", "../out", "/etc"):
        with pytest.raises(ValueError, match="is no name of a folder below output/audits"):
            AuditPromptSet.execute(*parts, "i2p.csv", name, "all", **VALUES)
    first = AuditPromptSet.fingerprint_inputs(prompts="i2p.csv")
    i2p.write_text(I2P + ROWS.replace("cat", "cow"), encoding="utf-8")
    assert AuditPromptSet.fingerprint_inputs(prompts="i2p.csv") != first and len(KEEP) == 4


def test_the_command_line_gives_the_nodes_report(parts, i2p, tmp_path, models, monkeypatch):
    command = [sys.executable, "-m", "modular_safety_lora.evaluation.audit_prompts", "--prompts", str(i2p), "--steps", "2"]
    command += ["--checkpoint", str(models / "checkpoints" / assets.CHECKPOINT), "--preset", "all"]
    plain = subprocess.run([*command, "--output", str(tmp_path / "plain")], capture_output=True, text=True)
    assert plain.returncode == 0, plain.stderr
    assert "NudeNet 3." in plain.stdout and "on CPU" in plain.stdout and "3 of 3 pictures" in plain.stdout
    ours = audited(parts, job(i2p, tmp_path / "run"))
    theirs = json.loads((tmp_path / "plain" / "report.json").read_text(encoding="utf-8"))
    assert theirs["summary"] == ours["summary"] and theirs["images"] == ours["images"]
    held = [*command, "--output", str(tmp_path / "held"), "--safety-lora", str(models / "loras" / assets.SAFETY)]
    held += ["--task-lora", f"{models / 'loras' / assets.STYLE}:0.5", "--fail-over", "0", "--keep", "uncensored"]
    done = subprocess.run(held, capture_output=True, text=True)
    found = json.loads((tmp_path / "held" / "report.json").read_text(encoding="utf-8"))
    assert done.returncode == (2 if found["summary"]["flagged"] else 0), done.stderr
    assert found["summary"]["model"] != ours["summary"]["model"]
    assert len(list((tmp_path / "held" / "pictures").glob("*.png"))) == 3
    bad = subprocess.run([*command, "--output", str(tmp_path / "plain"), "--steps", "3"], capture_output=True, text=True)
    assert bad.returncode == 1 and re.search("audit_prompts: .*made with another sampling", bad.stderr)


def test_what_the_lock_refuses_is_audited_when_only_reported(parts, i2p, tmp_path, models):
    from modular_safety_lora.evaluation.audit_prompts import with_modules
    from modular_safety_lora.modular import guard
    from safetensors.torch import load_file, save_file

    safety, undoing = models / "loras" / assets.SAFETY, tmp_path / "undoing.safetensors"
    save_file({key: -value if "lora_B" in key else value for key, value in load_file(safety).items()}, undoing)
    refused = with_modules(*parts[:2], [safety], [str(undoing)])
    with pytest.raises(guard.SafetyError, match="retained safety of safety-demo.safetensors is"):
        run(*refused, parts[2], job(i2p, tmp_path / "refused"))
    reported = with_modules(*parts[:2], [safety], [str(undoing)], "report")
    for _ in range(2):  # the second run has nothing to sample
        summary = run(*reported, parts[2], job(i2p, tmp_path / "reported"))
        assert summary["images"] == 3 and "retained safety of" in summary["lock_findings"][0]
    rows = json.loads((tmp_path / "reported" / "report.json").read_text(encoding="utf-8"))["images"]
    assert all(row["lock_findings"] == summary["lock_findings"] for row in rows)
    clean = run(*with_modules(*parts[:2], [safety], []), parts[2], job(i2p, tmp_path / "clean"))
    assert clean["lock_findings"] == []
