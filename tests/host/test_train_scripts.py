"""The command lines of training.

They are shared by processes; what they leave is read, and errors are one line.
"""

import json
import os
import socket
import subprocess

import merging
import pytest
from cli import run, start
from modular_safety_lora.lab import assets
from modular_safety_lora.modules import files
from PIL import Image
from safetensors.torch import load_file
from training_commands import LAUNCH, SCRIPT, TOGETHER, launched, task

SAFETY = ["train-safety"]


def last_line(done: subprocess.CompletedProcess) -> str:
    return done.stderr.strip().splitlines()[-1]


@pytest.fixture
def folder(tmp_path):
    return merging.picture_folder(tmp_path / "data", 4)


def processes(*arguments: str) -> list[subprocess.CompletedProcess]:
    """A verb in two processes that train together, as a launcher starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port} | TOGETHER
    ranks = [{"RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]
    return [each.done() for each in [start(*arguments, env=shared | rank) for rank in ranks]]


def launched_together(*arguments: str) -> list[subprocess.CompletedProcess]:
    """The same by Accelerate's launcher, which prints what both print."""
    return [launched([*LAUNCH, SCRIPT, *arguments[1:]], env=os.environ | TOGETHER)]


WAYS = [processes, launched_together]


@pytest.mark.long
@pytest.mark.parametrize("together", WAYS)
def test_two_processes_give_what_one_gives(models, folder, tmp_path, together):
    """The anchor, prior pictures and accumulation are shared out too."""
    concepts = tmp_path / "concepts.txt"
    concepts.write_text("nude\n")
    more = ["--steps", "3", "--batch-size", "2", "--accumulate", "2", "--prior-data", str(folder)]
    more += ["--safety-lora", str(models / "loras" / assets.SAFETY), "--safety-mode", "anchored"]
    more += ["--anchor-every", "1", "--concept-file", str(concepts)]
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    done = start(*task(models, folder, one, *more), env=TOGETHER).done()
    assert done.returncode == 0, done.stderr[-2000:]
    first, *others = together(*task(models, folder, two, *more))
    assert [each.returncode for each in (first, *others)] == [0] * (1 + len(others)), first.stderr
    assert " 2/2 " in first.stderr and " 3/3 [" in first.stderr, (
        "each encodes its half of the four pictures"
    )
    assert first.stdout.count(f"Wrote {two} after 3 steps.") == 1
    assert not any(each.stdout for each in others)
    left, right = load_file(one), load_file(two)
    moved = max(value.abs().max().item() for name, value in left.items() if "lora_up" in name)
    apart = max((value - right[name]).abs().max().item() for name, value in left.items())
    assert moved > 1e-3 and apart < 0.01 * moved, (moved, apart)
    losses = [
        json.loads(path.with_suffix(".json").read_text())["loss"]["last"] for path in (one, two)
    ]
    # what is not shared out right is off by half; kernels add in other orders, and the anchor is
    # the square of a small difference
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)


def test_a_disk_that_takes_no_more_is_a_clear_error(models, folder, tmp_path):
    """A limit on the size of files, which the writer meets as it meets a full disk.

    It is an error of the operating system.
    """
    output = tmp_path / "task.safetensors"
    arguments = task(models, folder, output, "--steps", "2", "--save-every", "1")
    done = start(*arguments, file_size=50_000, env={"MPLCONFIGDIR": str(tmp_path)}).done()
    assert done.returncode == 1 and "could not be written" in last_line(done), done.stderr[-2000:]
    assert last_line(done).startswith(
        "train-task: "
    ) and "Make room or choose another folder" in last_line(done)
    assert not [
        path for path in tmp_path.iterdir() if path.suffix in (".safetensors", ".resume", ".part")
    ]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: [path.unlink() for path in folder.iterdir()], "no pictures in it"),
        (lambda folder: (folder / "0.png").unlink(), "1 caption without a picture (first: 0.txt)"),
        (
            lambda folder: (folder / "0.txt").unlink(),
            "1 of 4 pictures without a caption (first: 0.png)",
        ),
        (lambda folder: broken_jpeg(folder), "1 of 5 pictures can't be read (first: 9.jpg"),
    ],
)
def test_bad_data_is_one_line_and_nothing_is_written(models, folder, tmp_path, damage, message):
    damage(folder)
    done = run(*task(models, folder, tmp_path / "x.safetensors"))
    assert (
        done.returncode == 1
        and last_line(done).startswith("train-task: ")
        and message in last_line(done)
    )
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def broken_jpeg(folder) -> None:
    Image.effect_noise((64, 64), 60).convert("RGB").save(folder / "9.jpg")
    (folder / "9.jpg").write_bytes((folder / "9.jpg").read_bytes()[:-800])
    (folder / "9.txt").write_text("a broken picture")


def test_the_script_writes_a_sealed_module_with_chart_report_and_previews(models, tmp_path):
    output, prompts = tmp_path / "safety.safetensors", tmp_path / "prompts.txt"
    prompts.write_text("a person\n\na beach\n")
    module = [
        *SAFETY,
        "--checkpoint",
        str(models / "checkpoints" / assets.CHECKPOINT),
        "--output",
        str(output),
    ]
    small = ["--steps", "2", "--resolution", "32", "--sampling-steps", "3", "--rank", "2"]
    # two steps at a usual rate are too small for a safety module
    small += ["--learning-rate", "1e-2"]
    looks = ["--preview-prompts", str(prompts), "--preview-every", "1", "--preview-size", "64"]
    looks += ["--preview-steps", "2"]
    done = run(*module, "--concept", "nude", "--concept-preset", "nudity-mace", *small, *looks)
    assert done.returncode == 0, done.stderr[-2000:]
    sealed = files.load_safety(output, "safety")
    assert (
        sealed.metadata["msl.concept"] == "nudity, naked, erotic, sexual, nude"
        and sealed.sha256 in done.stdout
    )
    report = json.loads(output.with_suffix(".json").read_text())
    assert [each["step"] for each in report["previews"]] == [0, 1, 2] and report["previews"][1][
        "images"
    ] == 2
    assert Image.open(output.with_suffix(".png")).size == (1200, 900)
    assert len(list((tmp_path / "safety.previews").iterdir())) == 6
    done = run(*module, "--concept", "nude", *small)
    assert done.returncode == 1 and "exists already" in last_line(done)
    done = run(*module, "--output", str(tmp_path / "other.safetensors"))
    assert done.returncode == 1 and "train-safety: There is no concept prompt" in done.stderr
