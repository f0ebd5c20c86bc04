"""The whole command: what it refuses; killed it ends with the table of one that was not."""

import json
import os
import signal
import time
from pathlib import Path

import cli
import merging
import pytest
from modular_safety_lora.lab import assets
from training_commands import same

SMALL = "--steps 6 --resolution 32 --rank 2 --learning-rate 1e-3 --targets cross-attention"
SMALL += " --width 64 --height 64 --pictures-steps 1 --pictures-per-prompt 1 --prompts-per-kind 1"
SMALL += " --seeds 1 --save-every 1 --preset all --keep none"


def command(models: Path, folder: Path, output: Path, *more: str) -> list[str]:
    checkpoint = models / "checkpoints" / assets.CHECKPOINT
    files = ["--checkpoint", checkpoint, "--data", folder, "--output", output]
    return ["fine-tuning", *map(str, files), *SMALL.split(), *more]


def given(models: Path) -> list[str]:
    return ["--safety-lora", str(models / "loras" / assets.SAFETY)]


def report(output: Path) -> dict:
    return json.loads((output / "report.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return merging.picture_folder(tmp_path_factory.mktemp("pictures") / "data", 2)


def waited_for(running: cli.Command, file: Path) -> None:
    """Until a file is there, and a little longer."""
    deadline = time.monotonic() + 200
    while running.returncode is None and not file.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert file.exists() and running.returncode is None, running.done().stderr[-2000:]
    time.sleep(0.1)


@pytest.mark.long
def test_killed_it_goes_on_and_its_table_is_that_of_one_that_was_not(models, folder, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = cli.start(*command(models, folder, whole, *given(models))).done(600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "In all about" in done.stdout and "Report: " in done.stdout
    points = ("loras/task-apart-1.resume", "audits/safe/concept/audit.sqlite")
    points += ("loras/task-on-top-1.resume",)
    for point in points:
        running = cli.start(*command(models, folder, killed, *given(models)))
        waited_for(running, killed / point)
        running.kill()
    before = (killed / "loras" / "task-apart-1.safetensors").stat().st_mtime_ns
    done = cli.start(*command(models, folder, killed, *given(models))).done(600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (killed / "loras" / "task-apart-1.safetensors").stat().st_mtime_ns == before
    assert (killed / "table.md").read_bytes() == (whole / "table.md").read_bytes()
    assert report(killed) == report(whole)
    loras = sorted(path.name for path in (whole / "loras").glob("*.safetensors"))
    assert len(loras) == 2
    assert all(same(whole / "loras" / name, killed / "loras" / name) for name in loras)


@pytest.mark.long
def test_ctrl_c_says_how_to_go_on_and_more_repetitions_may_follow(models, folder, tmp_path):
    output = tmp_path / "stopped"
    arguments = command(models, folder, output, *given(models))
    running = cli.start(*arguments)
    waited_for(running, output / "loras" / "task-on-top-1.resume")
    os.kill(running.process.pid, signal.SIGINT)
    done = running.done(300)
    assert done.returncode == 1 and "the same command continues from here" in done.stderr
    assert report(output)["unfinished"]
    assert cli.start(*arguments).done(600).returncode == 0
    assert report(output)["unfinished"] == []
    assert cli.start(*arguments, "--seeds", "2", "--anchored").done(600).returncode == 0
    told = {arm["arm"]: arm["seeds"] for arm in report(output)["arms"]}
    assert told["modular"] == told["sequential"] == told["anchored"] == [1, 2]


@pytest.mark.long
def test_a_preset_trains_a_safety_lora_for_each_repetition(models, folder, tmp_path):
    more = ["--concept-preset", "nudity", "--safety-steps", "3", "--safety-learning-rate", "1e-2"]
    output = tmp_path / "preset"
    done = cli.start(*command(models, folder, output, *more, "--seeds", "2")).done(600)
    assert done.returncode == 0, done.stderr[-3000:]
    found = report(output)
    assert found["unfinished"] == [] and found["safety"] == []
    told = {arm["arm"]: arm["seeds"] for arm in found["arms"]}
    assert told.pop("base") == [] and set(told) == {"task_only", "safe", "sequential", "modular"}
    assert all(seeds == [1, 2] for seeds in told.values())
    files = [output / "loras" / f"safety-{seed}.safetensors" for seed in (1, 2)]
    assert not same(*files)


def test_what_can_not_be_done_is_refused_before_anything_is_loaded(models, tmp_path):
    folder = merging.picture_folder(tmp_path / "data", 1)
    base = ["fine-tuning", "--checkpoint", "none.safetensors", "--data", folder]
    base += ["--output", tmp_path / "out"]
    said = cli.run(*base)
    assert said.returncode == 1 and "There is no safety LoRA" in said.stderr
    loose = models / "loras" / assets.STYLE
    said = cli.run(*base, "--safety-lora", loose)
    assert said.returncode == 1 and "this is a task LoRA" in said.stderr
    said = cli.run(*base, "--concept-preset", "nudity", "--safety-method", "surrogate")
    assert said.returncode == 1 and "surrogate" in said.stderr
    (folder / "0.txt").write_text("")
    said = cli.run(*base, "--concept-preset", "nudity")
    assert "Warning: data: not one of 1 picture has a caption (first: 0.png)" in said.stderr
    assert not (tmp_path / "out").exists()
