"""What a training run can know before a model is loaded is said then, and its name is its own."""

import threading
import types
from pathlib import Path

import folder_paths
import merging
import pytest
import torch
from cli import run
from layer_roles import chosen
from modular_safety_lora.nodes.training import Started
from modular_safety_lora.storage.owned import InUse, owned
from modular_safety_lora.training.engine.adapters import (
    AdapterSettings,
    adapters_in,
    weight_count,
)
from modular_safety_lora.training.engine.checkpoint import Checkpoint, CheckpointError
from modular_safety_lora.training.engine.job import TrainingJob
from modular_safety_lora.training.engine.loop import TrainingError, train
from modular_safety_lora.training.engine.output import check_room
from modular_safety_lora.training.settings import Settings
from modular_safety_lora.training.task import train_task
from safetensors import safe_open
from safetensors.torch import save_file
from training_commands import task


@pytest.fixture
def folder(tmp_path):
    return merging.picture_folder(tmp_path / "data", 2)


def wrong_caption(folder) -> None:
    (folder / "0.txt").write_bytes("Käfer".encode("latin-1"))


def cut_picture(folder) -> None:
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:60])


def touched(name: str):
    return lambda folder: (folder.parent / name).write_bytes(b"mine")


KNOWN = {
    "the output is there": ([], touched("x.safetensors"), "x.safetensors exists already"),
    "a user's chart is there": (
        [],
        touched("x.png"),
        "x.png exists already, and goes with x.safetensors. Choose another name",
    ),
    "a user's report is there": (
        [],
        touched("x.json"),
        "x.json exists already, and goes with x.safetensors",
    ),
    "no expression": (["--targets", "("], None, "nor a regular expression"),
    "no targets": (["--targets", ""], None, "The targets are empty"),
    "a rank of millions": (["--rank", "5000000"], None, "rank is 5000000; "),
    "a rate that is no number": (["--learning-rate", "nan"], None, "learning_rate is nan"),
    "a norm that is no number": (["--clip-norm", "nan"], None, "clip_norm is nan"),
    "guidance without end": (["--preview-guidance", "inf"], None, "preview_guidance is inf"),
    "no such preset": (["--preview-preset", "nosuch"], None, "nosuch"),
    "no such prompts": (["--preview-prompts", "gone.txt"], None, "gone.txt: its lines can't be"),
    "no such concept": (["--concept-file", "gone.txt"], None, "gone.txt: its lines can't be"),
    "anchored to nothing": (["--safety-mode", "anchored"], None, "needs a safety LoRA"),
    "a caption in Latin-1": ([], wrong_caption, "1 of 2 captions can't be read (first: 0.txt"),
    "a broken picture": ([], cut_picture, "1 of 2 pictures can't be read (first: 1.png"),
}


@pytest.mark.parametrize("case", KNOWN)
def test_it_is_said_before_a_model_is_loaded(comfyui, tmp_path, folder, case):
    """The checkpoint is not there: whatever is said before that needed none."""
    options, prepare, message = KNOWN[case]
    if prepare:
        prepare(folder)
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    done = run(*task(tmp_path, folder, tmp_path / "x.safetensors", *options))
    assert done.returncode == 1 and message in done.stderr, done.stderr
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_without_a_fault_it_is_the_checkpoint_that_is_missing_and_a_caption_is_told(
    comfyui, tmp_path, folder
):
    (folder / "1.txt").write_text("\n")
    done = run(*task(tmp_path, folder, tmp_path / "x.safetensors"))
    assert done.returncode == 1 and "there is no such checkpoint" in done.stderr
    assert "Warning: data: 1 of 2 pictures without a caption (first: 1.png)" in done.stderr


def test_targets_that_no_layer_has_are_said_before_a_picture_is_encoded(models, tmp_path, folder):
    done = run(*task(models, folder, tmp_path / "x.safetensors", "--targets", "nosuch"))
    assert done.returncode == 1 and "No layer of this model matches the targets" in done.stderr
    assert "Encoding pictures" not in done.stderr


def test_a_name_of_another_kind_is_refused_by_the_run_itself(model, tmp_path):
    """Whoever calls it: its chart, report and checkpoint would be the module."""
    for suffix in (".png", ".json", ".resume", ""):
        job = TrainingJob(tmp_path / f"style{suffix}")
        with pytest.raises(ValueError, match="the name must end in .safetensors"):
            train_task(model, None, {}, Settings(), job)
    assert not list(tmp_path.iterdir())


def test_a_name_that_another_run_writes_is_refused_at_both_doors(comfyui, tmp_path, folder):
    """A second run is another process; to this thread another thread's lock is the same."""
    output, name = tmp_path / "x.safetensors", "held-for-a-test"
    node = Path(folder_paths.get_folder_paths("loras")[0], f"{name}.safetensors")
    held, done = threading.Event(), threading.Event()

    def first() -> None:
        with owned(output), owned(node):
            held.set()
            done.wait(60)

    thread = threading.Thread(target=first)
    thread.start()
    held.wait(60)
    try:
        said = run(*task(tmp_path, folder, output)).stderr
        assert "another run is writing to this name" in said
        with pytest.raises(InUse), Started(name).held(Settings()):
            pass
    finally:
        done.set()
        thread.join()
    with Started(name).held(Settings()):
        pass


def test_a_file_that_comes_while_it_trains_is_kept_and_so_is_what_was_trained(
    model, dataset, texts, tmp_path
):
    output = tmp_path / "x.safetensors"

    def on_step(progress) -> bool:
        if progress.step == 1:
            output.write_bytes(b"mine")
        return True

    with pytest.raises(FileExistsError, match="was written by something else during training"):
        settings = Settings(steps=1, **merging.SMALL)
        train_task(model, dataset, texts, settings, TrainingJob(output, on_step=on_step))
    assert output.read_bytes() == b"mine" and (tmp_path / "x.resume").exists()


@pytest.mark.parametrize("name", ["", " ", ".safetensors", "sub/", "sub/.safetensors"])
def test_the_node_asks_for_a_name(comfyui, name):
    with pytest.raises(ValueError, match="save_as is empty"), Started(name).held(Settings()):
        pass


def test_weights_are_counted_before_they_are_made_and_refused_for_memory(
    model, tmp_path, monkeypatch
):
    network = model.model.diffusion_model
    for targets in ("attention", "all"):
        for settings in (AdapterSettings(3), AdapterSettings(3, use_dora=True)):
            layers = chosen(network, targets)
            with adapters_in(network, layers, settings) as adapters:
                made = sum(value.numel() for value in adapters.parameters.values())
            assert weight_count(network, layers, settings) == made
    monkeypatch.setattr("shutil.disk_usage", lambda _: types.SimpleNamespace(free=2**70))
    with pytest.raises(TrainingError, match=r"weights would be trained, .* lower rank"):
        check_room(tmp_path, 2**50)


@pytest.fixture(scope="module")
def written(checkpoint, tmp_path_factory):
    """A checkpoint of two steps, and what reads it again."""
    path = tmp_path_factory.mktemp("state") / "x.resume"
    network = checkpoint[0].model.diffusion_model

    def again(steps: int = 2, **changed):
        settings = Settings(steps=steps, **merging.SMALL | changed)
        layers = chosen(network, "cross-attention")[:2]
        with adapters_in(network, layers, AdapterSettings(2, 2.0)) as adapters:

            def loss_of(_):
                return {"task": sum(each.square().sum() for each in adapters.parameters.values())}

            start = [value.detach().clone() for value in adapters.parameters.values()]
            try:
                return train(adapters, [[0]], loss_of, settings, Checkpoint(path, every=1))
            except CheckpointError:
                same = zip(start, adapters.parameters.values(), strict=True)
                assert all(torch.equal(one, other) for one, other in same), "half of it is in place"
                raise

    again()
    return path, path.read_bytes(), again


def flipped(place: float):
    def damage(path, content: bytes) -> None:
        at = int(len(content) * place)
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])

    return damage


def without(*names: str):
    def damage(path, content: bytes) -> None:
        path.write_bytes(content)
        with safe_open(str(path), framework="pt") as file:
            about = {name: value for name, value in file.metadata().items() if name not in names}
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        save_file(tensors, path, metadata=about)

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        flipped(0.0),
        flipped(0.3),
        flipped(0.6),
        flipped(0.9),
        flipped(0.9999),
        without("state"),
        without("digest"),
        without("state", "digest", "settings", "step", "losses", "previews"),
        lambda path, content: path.write_bytes(content[:-9]),
        lambda path, content: path.write_bytes(b""),
    ],
)
def test_a_checkpoint_with_a_changed_bit_is_not_gone_on_from(written, damage):
    path, content, again = written
    damage(path, content)
    with pytest.raises(CheckpointError, match=r"x.resume: it can't be read .* Delete it to start"):
        again()
    path.write_bytes(content)
    assert again().step == 2


def test_what_differs_from_a_checkpoint_is_said_and_nothing_else(written):
    path, content, again = written
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        again(seed=9, learning_rate=0.5)
    assert "(learning_rate 0.001, now 0.5; seed 0, now 9)" in str(caught.value)
