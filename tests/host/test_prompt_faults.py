"""What goes wrong with a prompt set: told before a model is loaded, or in the row that it is of."""

import json

import cli
import pytest
from modular_safety_lora.audit.presets import PRESETS
from modular_safety_lora.audit.rules import Rules
from modular_safety_lora.commands import main
from modular_safety_lora.evaluation.job import AuditJob
from modular_safety_lora.evaluation.prompt_set import Selection, read_prompts
from modular_safety_lora.evaluation.run import run
from modular_safety_lora.host.sampling import Sampling
from modular_safety_lora.lab import assets
from prompt_sets import I2P, ROWS, job


def test_a_prompt_without_a_picture_is_a_row_that_says_so_and_the_run_goes_on(
    parts, models, i2p, tmp_path
):
    """The second row's guidance takes the latents beyond what float32 holds."""
    folder, made = tmp_path / "run", []
    rows = ROWS.replace("3969596299,7,", "3969596299,1e300,")
    i2p.write_text(I2P + rows, encoding="utf-8")
    watched = {"on_picture": lambda done, picture: made.append((done, picture is not None))}
    for count, seen in (
        (3, [(0, False), (1, True), (2, False), (3, True)]),
        (1, [(2, False), (3, False)]),
    ):
        made.clear()
        summary = run(*parts, job(i2p, folder, keep="all, censored", **watched))
        assert made == seen, f"{count} made"
        assert summary["images"] == 2 and summary["unreadable"] == 1
        why = "000002, the picture holds values that are not numbers (NaN or infinite)"
        assert summary["not_made"] == f"1 of 3 prompts gave no picture (first: {why})"
        assert summary["not_made"] in summary["verdict"]
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert [row["key"] for row in report["images"]] == ["000001", "000003"]
    [row] = report["unreadable"]
    assert row["key"] == "000002" and row["prompt"] == 'a "red" car' and row["seed"] == 3969596299
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "000002: a &#34;red&#34; car" in page and "not numbers" in page
    assert len(list((folder / "pictures").iterdir())) == 2
    command = ["audit-prompts", "--prompts", i2p, "--steps", "2", "--preset", "all", "--output"]
    command += [folder, "--checkpoint", models / "checkpoints" / assets.CHECKPOINT]
    done = cli.run(*command, "--fail-over", "1")
    assert done.returncode == 2 and "1 of 3 prompts gave no picture" in done.stdout, done.stderr


def test_an_embedding_that_is_not_there_is_no_prompt_without_it(parts, tmp_path):
    """ComfyUI draws the prompt without it, and only its log says so."""
    import torch
    from modular_safety_lora.host.prefixes import embeddings_in
    from safetensors.torch import save_file

    save_file({"clip_l": torch.zeros(2, 768)}, tmp_path / "there.safetensors")
    texts = "embedding:there a cat", "(embedding:there:1.2), a cat", "a (embedding:gone:1.2) cat"
    rows = "".join(f'"{text}",64,64\n' for text in texts)
    (tmp_path / "set.csv").write_text(f"prompt,width,height\n{rows}", encoding="utf-8")
    with embeddings_in(parts[1], tmp_path):
        summary = run(*parts, job(tmp_path / "set.csv", tmp_path / "run"))
    assert (summary["images"], summary["unreadable"]) == (2, 1)
    why = "(first: 000003, ComfyUI can't read embedding:gone)"
    assert summary["not_made"] == f"1 of 3 prompts gave no picture {why}"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--limit", "-2"], "limit is -2; it must be a whole number, at least 0"),
        (["--fail-over", "nan"], "--fail-over is nan; it must be a share"),
        (["--fail-over", "5"], "--fail-over is 5.0; it must be a share"),
        (["--cfg", "nan"], "cfg is nan; it must be a finite number"),
        (["--steps", "0"], "steps is 0; it must be a whole number, at least 1"),
        (["--sampler-name", "Euler"], "sampler_name is 'Euler'; it must be one of euler, "),
        (["--scheduler", "none"], "scheduler is 'none'; it must be one of simple, "),
        (["--threshold", "nan"], "threshold"),
        (["--task-lora", "x.safetensors:nan"], "x.safetensors:nan: the strength is nan"),
        (["--task-lora", "absent.safetensors"], "absent.safetensors"),
        (["--safety-lora", "absent.safetensors"], "absent.safetensors"),
    ],
)
def test_what_is_wrong_is_said_before_a_model_is_loaded(
    i2p, tmp_path, given, message, monkeypatch, capsys
):
    """The checkpoint is not even there."""
    monkeypatch.chdir(tmp_path)
    command = ["audit-prompts", "--prompts", str(i2p), "--output", "out", "--checkpoint", "none"]
    assert main([*command, *given]) == 1
    said = capsys.readouterr().err
    assert message in said and "checkpoint" not in said


def test_another_audits_folder_is_refused_before_a_model_is_loaded(
    parts, i2p, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "run"
    first = AuditJob(
        "i2p",
        read_prompts(i2p, selection=Selection(limit=1)),
        Rules(PRESETS["all"]),
        Sampling(2),
        folder,
    )
    run(*parts, first)
    command = ["audit-prompts", "--prompts", str(i2p), "--output", str(folder)]
    command += ["--checkpoint", "none", "--steps", "2", "--preset"]
    assert main([*command, "UnlearnDiffAtk from paths"]) == 1
    assert (
        "made with another preset (all; now UnlearnDiffAtk from paths)" in capsys.readouterr().err
    )
    assert main([*command, "strict"]) == 1, "the rows are counted again, beside the same model"
    assert "there is no such checkpoint" in capsys.readouterr().err
    assert main([*command, "all"]) == 1
    assert "there is no such checkpoint" in capsys.readouterr().err
