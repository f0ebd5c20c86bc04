"""Prompt sets through a model, in the node and on the command line.

Pictures are made as KSampler makes them, and kept row by row.
"""

import json
import re
import sqlite3

import cli
import folder_paths
import numpy as np
import pytest
import torch
from modular_safety_lora.audit.detectors.registry import register
from modular_safety_lora.audit.presets import read_presets
from modular_safety_lora.audit.rules import Rules
from modular_safety_lora.evaluation.job import KEEP, AuditJob
from modular_safety_lora.evaluation.prompt_set import Selection, read_prompts
from modular_safety_lora.evaluation.run import run
from modular_safety_lora.host.sampling import Sampling
from modular_safety_lora.lab import assets
from modular_safety_lora.modules.errors import SafetyError
from modular_safety_lora.modules.files import load_safety
from modular_safety_lora.nodes.prompt_audit import AuditPromptSet
from modular_safety_lora.nodes.prompt_sets import prompt_files
from modular_safety_lora.options.choices import ChoiceError
from PIL import Image
from prompt_sets import I2P, ROWS, VALUES, audited, job


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
    assert [row["prompt"] for row in report["images"]] == [
        "a cat, asleep",
        'a "red" car',
        "a dog\non two lines",
    ]
    assert (
        report["summary"]["images"] == 3
        and report["summary"]["categories"]["shocking"]["images"] == 1
    )
    rows = (
        sqlite3.connect(folder / "audit.sqlite")
        .execute("select key, data from pictures order by key")
        .fetchall()
    )
    assert [json.loads(data) for _, data in rows] == report["images"]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Audit of i2p" in page and page.count("<svg") == 3
    assert not (folder / "pictures").exists(), "no picture is kept unless asked"


def test_flagged_pictures_are_kept_censored(parts, i2p, tmp_path, monkeypatch):
    from skimage.data import astronaut

    face = torch.from_numpy(astronaut().astype(np.float32) / 255)
    monkeypatch.setattr("modular_safety_lora.evaluation.run.make_picture", lambda *_, **__: face)
    shown = []
    watched = {"on_picture": lambda done, picture: shown.append(picture)}
    report = audited(
        parts, job(i2p, tmp_path / "run", preset="faces", keep="flagged, censored", **watched)
    )
    assert (
        report["summary"]["flagged"] == 3
        and report["images"][0]["picture"] == "pictures/000001.png"
        and all(row["censored"] for row in report["images"])
    )
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
    summary = run(
        *parts,
        AuditJob(
            "i2p",
            read_prompts(i2p, selection=Selection(limit=1)),
            rules,
            Sampling(1),
            tmp_path / "run",
        ),
    )
    assert asked == ["openvino", "openvino"] and summary["second_opinion"]["neither"] == 1


def test_the_node_runs_a_set_of_the_input_folder(parts, i2p, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path))
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "out"))
    assert AuditPromptSet.validate_inputs(
        "i2p.csv"
    ) is True and "not in" in AuditPromptSet.validate_inputs("../i2p.csv")
    shipped = [
        name
        for name in AuditPromptSet.GET_SCHEMA().inputs[3].options
        if name.startswith("example: ")
    ]
    assert len(read_prompts(prompt_files()[shipped[0]])) == 12
    output = AuditPromptSet.execute(*parts, "i2p.csv", "base", preset="all", **VALUES)
    report, chart, rate, summary = output.args
    found = json.loads(report)
    assert found["summary"]["images"] == 3 and found["summary"]["lock_findings"] == []
    assert rate == found["summary"]["flagged_rate"] and chart.shape[2] == 1000
    assert "pictures flagged** by NudeNet" in summary and "report.html" in summary
    assert (tmp_path / "out" / "audits" / "base" / "report.html").is_file()
    for name in ("", "../out", "/etc"):
        with pytest.raises(ValueError, match="can't be a folder name below output/audits"):
            AuditPromptSet.execute(*parts, "i2p.csv", name, preset="all", **VALUES)
    with pytest.raises(ChoiceError, match="prompts is 'gone.csv'; it must be one of example: "):
        AuditPromptSet.execute(*parts, "gone.csv", "base", preset="all", **VALUES)
    first = AuditPromptSet.fingerprint_inputs(prompts="i2p.csv")
    i2p.write_text(I2P + ROWS.replace("cat", "cow"), encoding="utf-8")
    assert AuditPromptSet.fingerprint_inputs(prompts="i2p.csv") != first and len(KEEP) == 4


def test_the_command_line_gives_the_nodes_report(parts, i2p, tmp_path, models, monkeypatch):
    command = ["audit-prompts", "--prompts", i2p, "--steps", "2"]
    command += ["--checkpoint", models / "checkpoints" / assets.CHECKPOINT, "--preset", "all"]
    plain = cli.run(*command, "--output", tmp_path / "plain")
    assert plain.returncode == 0, plain.stderr
    assert "NudeNet 3." in plain.stdout and "on CPU" in plain.stdout and " 3/3 [" in plain.stderr
    ours = audited(parts, job(i2p, tmp_path / "run"))
    theirs = json.loads((tmp_path / "plain" / "report.json").read_text(encoding="utf-8"))
    assert theirs["summary"] == ours["summary"] and theirs["images"] == ours["images"]
    held = [
        *command,
        "--output",
        str(tmp_path / "held"),
        "--safety-lora",
        str(models / "loras" / assets.SAFETY),
    ]
    held += [
        "--task-lora",
        f"{models / 'loras' / assets.STYLE}:0.5",
        "--fail-over",
        "0",
        "--keep",
        "all, as they are",
        "--limit",
        "1",
    ]
    done = cli.run(*held)
    found = json.loads((tmp_path / "held" / "report.json").read_text(encoding="utf-8"))
    assert done.returncode == (2 if found["summary"]["flagged"] else 0), done.stderr
    assert found["summary"]["model"] != ours["summary"]["model"]
    assert len(list((tmp_path / "held" / "pictures").glob("*.png"))) == 1
    bad = cli.run(*command, "--output", tmp_path / "plain", "--steps", "3")
    assert bad.returncode == 1 and re.search(
        "audit-prompts: .*made with another sampling", bad.stderr
    )


def test_what_the_lock_refuses_is_audited_when_only_reported(parts, i2p, tmp_path, models):
    from modular_safety_lora.commands.audit_prompts import put_on
    from modular_safety_lora.merge.settings import Merging
    from safetensors.torch import load_file, save_file

    safety, undoing = models / "loras" / assets.SAFETY, tmp_path / "undoing.safetensors"
    save_file(
        {key: -value if "lora_B" in key else value for key, value in load_file(safety).items()},
        undoing,
    )
    held = [load_safety(safety, safety.name)]
    refused = put_on(*parts[:2], held, [(undoing, 1.0)])
    with pytest.raises(SafetyError, match="retained safety of safety-demo.safetensors is"):
        run(*refused, parts[2], job(i2p, tmp_path / "refused"))
    reported = put_on(*parts[:2], held, [(undoing, 1.0)], Merging("report"))
    for _ in range(2):  # the second run has nothing to sample
        summary = run(*reported, parts[2], job(i2p, tmp_path / "reported"))
        assert summary["images"] == 3 and "retained safety of" in summary["lock_findings"][0]
    rows = json.loads((tmp_path / "reported" / "report.json").read_text(encoding="utf-8"))["images"]
    assert all(row["lock_findings"] == summary["lock_findings"] for row in rows)
    locked = put_on(*parts[:2], held, [])
    clean = run(*locked, parts[2], job(i2p, tmp_path / "clean"))
    assert clean["lock_findings"] == []
