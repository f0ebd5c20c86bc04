"""The attacks of the threat model on a transformer, held in fp32 and quantised.

One run of the whole suite tries every attack on one of the two, in turn; the others are `long`.
"""

from functools import cache, partial

import folder_paths
import pytest
import torch
from attack_stage import Stage, stopped, unchanged
from attacks import ATTACKS
from layer_roles import chosen
from modular_safety_lora.lab import assets, zoo
from modular_safety_lora.lab.zoo.quantised import quantised
from modular_safety_lora.modules.errors import SafetyError
from modular_safety_lora.modules.files import load_safety, save_module
from safetensors.torch import save_file

pytestmark = pytest.mark.usefixtures("unloaded", "one_thread")
FAMILY = "Flux"
# the widths of the small checkpoint's text encoder, and the least that the host finds in a file
SIZES = {"context_in_dim": 768, "vec_in_dim": 768, "hidden_size": 128, "num_heads": 1}
SIZES |= {"axes_dim": [16, 56, 56]}
HELD = {
    "fp32": partial(zoo.build, FAMILY, sizes=SIZES),
    "fp8": partial(quantised, FAMILY, "float8_e4m3fn", sizes=SIZES),
}
ELSEWHERE = [name for name in ATTACKS if "UNet" not in name]  # those find nothing to multiply


@pytest.fixture(scope="module")
def stage_of(checkpoint, tmp_path_factory):
    """Each form's stage, made once, and the folder of its files."""

    @cache
    def made(held: str) -> tuple[Stage, str]:
        """The base is the transformer; the text encoder is the small checkpoint's."""
        folder = tmp_path_factory.mktemp("elsewhere")
        base = HELD[held]()
        base.cached_patcher_init = (lambda disable_dynamic=False: HELD[held](), ())
        network = base.model.diffusion_model
        found = chosen(network, "attention", FAMILY)
        modules = {name: network.get_submodule(name) for name in found}
        shapes = {name: torch.Size((m.out_features, m.in_features)) for name, m in modules.items()}
        tensors = assets.lora(shapes, 11) | assets.text_lora(5)
        save_module(folder / "safety.safetensors", tensors, {"msl.base": FAMILY}, "safety")
        save_file(tensors, folder / "stock.safetensors")
        save_file(assets.lora(shapes, 12), folder / "style.safetensors")
        weights = HELD["fp32"]().model.diffusion_model.state_dict()
        whole = {f"model.diffusion_model.{name}": value for name, value in weights.items()}
        save_file(whole, folder / "whole.safetensors")
        safety = load_safety(folder / "safety.safetensors", f"{held}.safetensors")
        files = ("stock.safetensors", "style.safetensors", "whole.safetensors")
        return Stage(base, checkpoint[1], safety, *files, kept={}), str(folder)

    return made


@pytest.fixture
def elsewhere(request, stage_of, monkeypatch):
    stage, folder = stage_of(request.param)
    for kind in ("loras", "checkpoints"):
        endings = folder_paths.folder_names_and_paths[kind][1]
        monkeypatch.setitem(folder_paths.folder_names_and_paths, kind, ([folder], endings))
    return stage


# ComfyUI's own merging of models raises for quantised ones: their scales are no attributes
BEFORE_US = "has no attribute 'weight_scale'"


TURNS = [
    pytest.param(held, name, marks=[pytest.mark.long] * min((place + turn) % 6, 1))
    for place, held in enumerate(HELD)
    for turn, name in enumerate(ELSEWHERE)
]


@pytest.mark.parametrize(("elsewhere", "name"), TURNS, indirect=["elsewhere"])
def test_an_attack_is_stopped_and_the_next_run_works(elsewhere, name):
    quantised_merge = "ModelMerge" in name and "fp8" in elsewhere.safety.name
    raised = (AttributeError, BEFORE_US) if quantised_merge else (SafetyError, ".")
    stopped(elsewhere, ATTACKS[name], *raised)


@pytest.mark.parametrize("elsewhere", HELD, indirect=True)
def test_after_all_of_it_a_new_merge_and_the_one_that_was_kept_give_the_safe_picture(elsewhere):
    unchanged(elsewhere)
