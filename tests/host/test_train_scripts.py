"""The command lines of training: killed and resumed, the file in the stock loader, and errors in one line."""

import os
import random
import signal
import subprocess
import sys
import time

import comfy.sd
import merging
import torch
from modular_safety_lora.demo import assets
from modular_safety_lora.modular import files
from safetensors.torch import load_file


def command(models, folder, output, *more: str) -> list[str]:
    checkpoint = models / "checkpoints" / assets.CHECKPOINT
    module = [sys.executable, "-m", "modular_safety_lora.training.train_task_lora", "--checkpoint", str(checkpoint)]
    small = [
        "--targets",
        "cross-attention",
        "--rank",
        "2",
        "--resolution",
        "64",
        "--learning-rate",
        "1e-3",
        "--save-every",
        "1",
    ]
    return [*module, "--data", str(folder), "--output", str(output), *small, *more]


def test_the_script_survives_being_killed_and_its_file_loads_in_the_stock_loader(model, models, tmp_path):
    folder, whole, killed = (
        merging.picture_folder(tmp_path / "data"),
        tmp_path / "whole.safetensors",
        tmp_path / "killed.safetensors",
    )
    done = subprocess.run(command(models, folder, whole, "--steps", "12"), capture_output=True, text=True)
    assert done.returncode == 0 and f"Wrote {whole} after 12 steps." in done.stdout, done.stderr[-2000:]
    state, chance = killed.with_suffix(".resume"), random.Random(1)
    for _ in range(3):
        process = subprocess.Popen(command(models, folder, killed, "--steps", "12", "--resume"), stdout=subprocess.DEVNULL)
        known = state.stat().st_mtime_ns if state.exists() else 0
        while process.poll() is None and (not state.exists() or state.stat().st_mtime_ns == known):
            time.sleep(0.01)
        time.sleep(chance.random() * 0.3)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
    if not killed.exists():
        subprocess.run(command(models, folder, killed, "--steps", "12", "--resume"), check=True, capture_output=True)
    expected, resumed = load_file(whole), load_file(killed)
    assert expected.keys() == resumed.keys() and all(torch.equal(resumed[key], expected[key]) for key in expected)
    loaded, _ = comfy.sd.load_lora_for_models(model, None, resumed, 1.0, 1.0)
    key = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    assert merging.relative_error(merging.effective(loaded, key), merging.effective(model, key)) > 0


def test_the_script_says_in_one_line_why_it_fails(models, tmp_path):
    (tmp_path / "empty").mkdir()
    done = subprocess.run(command(models, tmp_path / "empty", tmp_path / "x.safetensors"), capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.strip().splitlines()[-1].startswith("train_task_lora: ")
    assert "no pictures in it" in done.stderr


def test_the_script_writes_a_sealed_module(models, tmp_path):
    output = tmp_path / "safety.safetensors"
    checkpoint = models / "checkpoints" / assets.CHECKPOINT
    module = [sys.executable, "-m", "modular_safety_lora.training.train_safety_lora", "--checkpoint", str(checkpoint)]
    small = ["--steps", "2", "--resolution", "64", "--sampling-steps", "3", "--rank", "2"]
    done = subprocess.run(
        [*module, "--output", str(output), "--concept", "nude, naked", *small], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert files.load_safety(output, "safety").metadata["msl.concept"] == "nude, naked"
    done = subprocess.run([*module, "--output", str(output)], capture_output=True, text=True)
    assert done.returncode == 1 and "train_safety_lora: There is no concept prompt" in done.stderr
