"""The host tier runs inside ComfyUI, which is importable from here on.

So are the helpers that the tests share.
"""

import gc
import sys
from pathlib import Path

import pytest
from modular_safety_lora.host.comfyui import enter_comfyui

try:
    enter_comfyui()
except SystemExit as reason:  # one line instead of a traceback for each file
    pytest.exit(str(reason), returncode=pytest.ExitCode.USAGE_ERROR)
sys.path.insert(0, str(Path(__file__).parent))
pytest.register_assert_rewrite("page_commands", "small_runs")  # they assert as tests do


@pytest.fixture(scope="session", autouse=True)
def own_folders(tmp_path_factory):
    """ComfyUI's folders that the pack writes to, apart from other processes' and a user's."""
    import folder_paths

    folder_paths.set_output_directory(str(tmp_path_factory.mktemp("output")))
    folder_paths.set_temp_directory(str(tmp_path_factory.mktemp("temp")))
    folder_paths.set_user_directory(str(tmp_path_factory.mktemp("user")))


@pytest.fixture(scope="module", autouse=True)
def less_to_look_at():
    """What the files before left in memory stays: ComfyUI collects garbage at every load."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def model(checkpoint):
    """A clone of the small checkpoint's MODEL, unloaded afterwards."""
    import comfy.model_management

    yield checkpoint[0].clone()
    comfy.model_management.unload_all_models()


@pytest.fixture
def unloaded():
    """No model stays loaded after a test."""
    import comfy.model_management

    yield
    comfy.model_management.unload_all_models()


@pytest.fixture
def one_thread():
    """One thread: more only wait for each other in networks as small as the small models."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def no_chart(monkeypatch):
    """Training without the drawing of its chart, for tests of something else."""
    from modular_safety_lora.training.engine import written
    from PIL import Image

    monkeypatch.setattr(written, "loss_plot", lambda *_, **__: Image.new("RGB", (1200, 600)))


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
        torch.randn(1, 4, *size, generator=generator) for size in [(4, 4)] * 3 + [(4, 8)] * 2
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
    from modular_safety_lora.training.engine.job import TrainingJob
    from modular_safety_lora.training.settings import Settings
    from modular_safety_lora.training.task import train_task

    train_task(
        checkpoint[0],
        dataset,
        texts,
        Settings(steps=2, **merging.SMALL),
        TrainingJob(tmp_path / "task.safetensors"),
    )
    return tmp_path / "task.safetensors"


@pytest.fixture(scope="module")
def stage(models, checkpoint, tmp_path_factory):
    """A loras folder with a safety module that also changes the text encoder.

    The same tensors lie there as a stock LoRA.
    """
    import folder_paths
    from attack_stage import Stage
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


@pytest.fixture(scope="session")
def shapes(checkpoint):
    """The linear layers of the small checkpoint that the merge tests change, and their shapes."""
    import merging

    return merging.shapes(checkpoint[0], *merging.LINEAR)


@pytest.fixture
def safety_lora(checkpoint):
    """A LoRA on linear layers and convolutions, taken for the safety module by the merge tests."""
    import formats
    import merging

    return formats.Lora(merging.shapes(checkpoint[0], *merging.LINEAR, *merging.CONVOLUTION), 1)


@pytest.fixture(scope="session")
def tokens(checkpoint):
    """The concept's texts as tokens, by the host's encoder."""
    from concepts import tokens_of

    return tokens_of(checkpoint[1])


@pytest.fixture(scope="session")
def text_layers(checkpoint):
    """The layers of the small checkpoint that read the text, and their shapes."""
    from concepts import text_layers_of

    return text_layers_of(checkpoint[0])


@pytest.fixture(scope="session")
def prompted_module(models, text_layers):
    """The text-reading layers of the demo's safety module, with prompts; its changes in float64."""
    from concepts import prompted_part
    from modular_safety_lora.lab import assets

    return prompted_part(models / "loras" / assets.SAFETY, text_layers)


@pytest.fixture
def write_settings(models, tmp_path):
    """Writes the operator's settings, in a user folder of the test's own."""
    from operator_settings import own_settings

    with own_settings(models, tmp_path) as write:
        yield write


@pytest.fixture
def enforce(write_settings):
    """Writes the operator's settings and holds their policy for one test."""
    from operator_settings import held_policy

    with held_policy(write_settings) as hold:
        yield hold


@pytest.fixture(scope="module")
def one_level():
    """A probe's long form at one noise level, the quickest, for tests of something else."""
    from modular_safety_lora.function import long

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long, "LEVELS", (0.9,))
        yield
