"""A training script that is killed again and again ends with the file of one that was not."""

import os
import random
import signal
import time
from pathlib import Path

import cli
import comfy.sd
import merging
import pytest
from safetensors.torch import load_file
from training_commands import same, task

KINDS = ("safetensors", "png", "json")


def written(path: Path) -> int:
    """When a file was written last; 0 where there is none."""
    return path.stat().st_mtime_ns if path.exists() else 0


def refused_meanwhile(running: cli.Command, again: list[str]) -> None:
    """While a run is at it (and waits), the same command is told so at its start."""
    os.kill(running.process.pid, signal.SIGSTOP)
    try:
        second = cli.run(*again)
        assert second.returncode == 1 and "another run is writing to this name" in second.stderr
    finally:
        os.kill(running.process.pid, signal.SIGCONT)


@pytest.mark.parametrize("times", [2, pytest.param(5, marks=pytest.mark.long)])
def test_the_script_survives_being_killed_and_its_file_loads_in_the_stock_loader(
    model, models, tmp_path, times
):
    folder = merging.picture_folder(tmp_path / "data", 4)
    whole, killed = tmp_path / "whole.safetensors", tmp_path / "killed.safetensors"
    length = ["--steps", str(6 * times)]
    # forked as well: a process that ran other tests may share sums out to threads in another way
    done = cli.start(*task(models, folder, whole, *length)).done()
    assert done.returncode == 0 and f"Wrote {whole} after {6 * times} steps." in done.stdout, (
        done.stderr[-2000:]
    )
    again = [*task(models, folder, killed, *length), "--save-every", "1", "--resume"]
    state, chance, kills = killed.with_suffix(".resume"), random.Random(1), 0
    for turn in range(times):
        known, running = written(state), cli.start(*again)
        while running.returncode is None and written(state) == known:
            time.sleep(0.01)
        if turn == 0:
            refused_meanwhile(running, again)
        time.sleep(chance.random() * 0.3)
        kills += running.returncode is None
        running.kill()
    assert kills == times, "the run was over before it could be killed"
    half_made = tmp_path / f".{state.name}.{'0' * 32}.part"  # as a kill within a write leaves it
    half_made.mkdir()
    (half_made / ".tmpAbc").write_bytes(bytes(1000))
    done = cli.start(*again).done()
    assert done.returncode == 0, done.stderr[-2000:]
    assert same(killed, whole)
    files = {f"{each}.{kind}" for each in ("whole", "killed") for kind in KINDS}
    assert {path.name for path in tmp_path.iterdir()} == {"data", *files}
    loaded, _ = comfy.sd.load_lora_for_models(model, None, load_file(killed), 1.0, 1.0)
    key = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    assert merging.relative_error(merging.effective(loaded, key), merging.effective(model, key)) > 0
