"""The host tier runs inside ComfyUI, which is importable from here on.

So are the helpers that the tests share.
"""

import sys
from pathlib import Path

import pytest
from modular_safety_lora.host.comfyui import enter_comfyui

try:
    enter_comfyui()
except SystemExit as reason:  # one line instead of a traceback for each file
    pytest.exit(str(reason), returncode=pytest.ExitCode.USAGE_ERROR)
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]


@pytest.fixture(scope="session", autouse=True)
def own_folders(tmp_path_factory):
    """ComfyUI's output and temporary folders, apart from other processes' and a user's."""
    import folder_paths

    folder_paths.set_output_directory(str(tmp_path_factory.mktemp("output")))
    folder_paths.set_temp_directory(str(tmp_path_factory.mktemp("temp")))


@pytest.fixture
def model(checkpoint):
    """A clone of the small checkpoint's MODEL, unloaded afterwards."""
    import comfy.model_management

    yield checkpoint[0].clone()
    comfy.model_management.unload_all_models()


@pytest.fixture(scope="session")
def texts(checkpoint):
    """The conditioning of the prompts that the training tests use."""
    from modular_safety_lora.host.prompts import encode_texts

    return encode_texts(
        checkpoint[1], ["a cat", "a dog", "nude", "naked person", "a red car in the rain"]
    )


@pytest.fixture(scope="session")
def dataset(texts):
    """Five captioned latents in two sizes."""
    import torch
    from modular_safety_lora.training import data

    generator = torch.Generator().manual_seed(1)
    latents = [
        torch.randn(1, 4, *size, generator=generator) for size in [(8, 8)] * 3 + [(8, 16)] * 2
    ]
    conditions = [texts["a cat"], texts["a dog"], texts["a cat"], texts["a dog"], texts["a cat"]]
    return data.Dataset(latents, conditions, [[0, 1, 2], [3, 4]], "digest")


@pytest.fixture(scope="session")
def safety(models):
    """The sealed safety module of the seeded models."""
    from modular_safety_lora.lab import assets
    from modular_safety_lora.modules import files

    return files.load_safety(models / "loras" / assets.SAFETY, assets.SAFETY)


@pytest.fixture
def vae(models):
    """The small checkpoint's VAE."""
    import comfy.sd
    from modular_safety_lora.lab import assets

    return comfy.sd.load_checkpoint_guess_config(str(models / "checkpoints" / assets.CHECKPOINT))[2]


@pytest.fixture
def trained(checkpoint, dataset, texts, tmp_path) -> Path:
    """The file of a task LoRA that was trained for two steps."""
    import merging
    from modular_safety_lora.training.engine.run import Job
    from modular_safety_lora.training.settings import Settings
    from modular_safety_lora.training.task import train_task

    train_task(
        checkpoint[0],
        dataset,
        texts,
        Settings(steps=2, **merging.SMALL),
        Job(tmp_path / "task.safetensors"),
    )
    return tmp_path / "task.safetensors"


@pytest.fixture(scope="module")
def stage(models, checkpoint, tmp_path_factory):
    """A loras folder with a safety module that also changes the text encoder.

    The same tensors lie there as a stock LoRA.
    """
    import folder_paths
    from attacks import Stage
    from modular_safety_lora.lab import assets
    from modular_safety_lora.modules.files import load_safety, save_module
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("loras")
    tensors = load_file(models / "loras" / assets.SAFETY) | assets.text_lora(5)
    save_module(folder / "safety.safetensors", tensors, {"msl.base": "SD15"}, "safety")
    save_file(tensors, folder / "stock.safetensors")
    (folder / assets.STYLE).write_bytes((models / "loras" / assets.STYLE).read_bytes())
    before = {kind: folder_paths.folder_names_and_paths[kind] for kind in ("loras", "checkpoints")}
    for kind, place in (("loras", folder), ("checkpoints", models / "checkpoints")):
        folder_paths.folder_names_and_paths[kind] = ([str(place)], before[kind][1])
    safety = load_safety(folder / "safety.safetensors", "safety.safetensors")
    yield Stage(*checkpoint, safety, "stock.safetensors", assets.STYLE, assets.CHECKPOINT)
    folder_paths.folder_names_and_paths.update(before)


@pytest.fixture
def i2p(tmp_path):
    """A prompt file of three rows."""
    from prompt_sets import I2P, ROWS

    file = tmp_path / "i2p.csv"
    file.write_text(I2P + ROWS, encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def parts(models):
    """(model, clip, vae) of the small checkpoint."""
    import comfy.model_management
    from modular_safety_lora.host.comfyui import load_checkpoint
    from modular_safety_lora.lab import assets

    yield load_checkpoint(models / "checkpoints" / assets.CHECKPOINT)
    comfy.model_management.unload_all_models()
