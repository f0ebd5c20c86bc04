"""The pack by path, as it ships, for a Python that can't import it: whoever used the Manager."""

import json
import sys

import merging
import page_commands
import pytest
import small_models
from cli import run
from modular_safety_lora.emoji import checkpoint
from modular_safety_lora.lab import assets
from modular_safety_lora.modules.files import load_safety
from safetensors.torch import save_file
from stranger import BY_PATH, Stranger
from training_commands import LAUNCH, TOGETHER, task


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Stranger(tmp_path_factory.mktemp("stranger"))


def report_of(output) -> dict:
    return json.loads(output.read_text(encoding="utf-8"))


def audit(stranger, tmp_path, *more) -> None:
    """A face, and a file that is broken, audited by path and in this process: one report."""
    place = tmp_path / "pictures"
    place.mkdir()
    assets.astronaut(place / "face.png")
    (place / "bad.jpg").write_bytes(b"bad")
    command = ["audit", place, "--preset", "faces", "--workers", "2", "--output"]
    theirs, ours = tmp_path / "theirs.json", tmp_path / "ours.json"
    done = stranger.run(BY_PATH, *command, theirs, *more)
    assert done.returncode == 0 and "Ray gave up" not in done.stderr, done.stderr[-2000:]
    assert run(*command, ours).returncode == 0
    assert report_of(theirs) == report_of(ours)
    assert report_of(theirs)["summary"]["flagged"] == 1


def test_a_folder_is_audited_by_path_as_in_process(stranger, tmp_path):
    """The pool's processes find the pack, whose folder has another name, as their parent did."""
    audit(stranger, tmp_path)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="NO RAY for this Python")
@pytest.mark.long  # Ray starts eight processes
def test_ray_audits_by_path_too(stranger, tmp_path):
    audit(stranger, tmp_path, "--ray", "local")


def test_a_launcher_starts_the_script_and_a_batch_that_processes_cannot_share_is_refused(
    stranger, models, tmp_path
):
    script = f"{BY_PATH}/training/train_task_lora.py"
    arguments = task(models, tmp_path, tmp_path / "x.safetensors", "--steps", "1")
    done = stranger.run(*LAUNCH, script, *arguments[1:], **TOGETHER)
    assert done.returncode and "The batch size 1 can't be shared by 2 processes" in done.stderr


@pytest.mark.long  # three Pythons import ComfyUI
def test_a_prompt_set_is_shared_out_by_path(stranger, models, tmp_path):
    (tmp_path / "set.txt").write_text("a cat\na dog\n", encoding="utf-8")
    command = ["audit-prompts", "--prompts", tmp_path / "set.txt", "--preset", "all", "--steps", 1]
    command += ["--width", 64, "--height", 64, "--output", tmp_path / "run", "--workers", 2]
    checkpoint = models / "checkpoints" / assets.CHECKPOINT
    done = stranger.run(BY_PATH, *command, "--checkpoint", checkpoint)
    assert done.returncode == 0, done.stderr[-2000:]
    assert report_of(tmp_path / "run" / "report.json")["summary"]["images"] == 2


# a loss with a search, a closed form, and a moving average, which goes a thousandth of the way in a
# step: the rate, and what else is told
METHODS = {"esd-x": ["1e-2", "--adversarial-steps", "1"], "uce": ["1e-2"], "sdd": ["1"]}
SHORT = ["--steps", "2", "--resolution", "64", "--rank", "2"]


@pytest.fixture(params=["SD1.5 in fp8", "a DiT in bf16"])
def named(request, models, tmp_path):
    """(the arguments that name a base, those that name its VAE)."""
    if request.param == "SD1.5 in fp8":
        files = small_models.split(models, tmp_path, ("network", "text", "vae"))
        words = small_models.in_parts(files)
        return [*words[:-2], "--weight-dtype", "float8_e4m3fn"], words[-2:]
    weights = checkpoint.weights()
    network = {key: each.bfloat16() for key, each in weights.items() if "diffusion_model" in key}
    save_file(weights | network, tmp_path / "dit.safetensors")
    return ["--checkpoint", "dit.safetensors"], []


@pytest.mark.long  # a Python imports ComfyUI
def test_both_trainers_train_by_path_and_what_they_make_merges(stranger, named, tmp_path):
    """Each kind of method, and a task LoRA beside each."""
    (base, vae), commands = named, []
    merging.picture_folder(tmp_path / "pictures", 2)
    (tmp_path / "custom_nodes").symlink_to(stranger.folder / "custom_nodes")
    erase = ["--concept", "axe", "--sampling-steps", "2"]
    for method, how in METHODS.items():
        safety, style = f"{method}.safetensors", f"style-{method}.safetensors"
        told, beside = [*base, *vae, *SHORT], ["--safety-lora", safety]
        erased = [*erase, "--learning-rate", *how]
        commands += [
            ["train-safety", *told, *erased, "--method", method, "--output", safety],
            ["train-task", *told, *beside, "--data", "pictures", "--output", style],
            ["interference", style, *base, *beside, "--json"],
        ]
    done = page_commands.driven(stranger, [(tmp_path, [BY_PATH, *each]) for each in commands])
    page_commands.check(done)
    for method in METHODS:
        file = tmp_path / f"{method}.safetensors"
        assert load_safety(file, file.name).metadata["msl.method"] == method
    said = [json.loads(out["out"]) for _, words, out in done if words[1] == "interference"]
    assert [each["undone"] for each in said] == [False] * len(METHODS)
