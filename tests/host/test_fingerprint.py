"""Which model a prompt set goes on with: what changes its pictures tells it from others.

What a run leaves behind does not.
"""

import subprocess
import sys

import comfy.model_management
import comfy_extras.nodes_apg as apg
import comfy_extras.nodes_hooks as hooks
import comfy_extras.nodes_sag as sag
import pytest
import torch
from model_changes import CHANGES, bypassed, patched
from modular_safety_lora.host.fingerprint import fingerprint
from modular_safety_lora.lab import zoo
from modular_safety_lora.lab.server import PACK
from modular_safety_lora.lab.zoo.quantised import FORMATS, SCALED, quantised
from modular_safety_lora.modules.errors import SafetyError

import nodes


@pytest.fixture(scope="module")
def vae():
    return zoo.vae("SD15")


SAMPLED = ["a bypass LoRA", "a LoRA"]
SAMPLED += [
    pytest.param(each, marks=pytest.mark.long)
    for each in ("ModelSamplingSD3", "RescaleCFG", "FreeU")
]


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_on_a_model_tells_it_from_others(stage, vae, name):
    clip, make = stage.base_clip, CHANGES[name]

    def told(model):
        found = fingerprint(model, clip, vae)
        assert not found.untold
        return found.sha256

    made = make(stage, 1)
    assert len({told(stage.base), told(made), told(make(stage, 2))}) == 3
    assert told(make(stage, 1)) == told(made.clone()) == told(made), "made again, and a clone"


@pytest.mark.parametrize("name", SAMPLED)
def test_what_sampled_leaves_nothing_behind_on_itself_and_on_the_base(stage, vae, name):
    clip = stage.base_clip
    made = CHANGES[name](stage, 1)
    before = [fingerprint(each, clip, vae) for each in (stage.base, made)]
    stage.run(made)()
    assert [fingerprint(each, clip, vae) for each in (stage.base, made)] == before, "loaded"
    stage.run(stage.base)()
    assert [fingerprint(each, clip, vae) for each in (stage.base, made)] == before
    comfy.model_management.unload_all_models()
    assert [fingerprint(each, clip, vae) for each in (stage.base, made)] == before, "unloaded"


def test_a_locked_model_is_told_from_what_is_put_on_it_also_when_that_was_refused(stage, vae):
    locked, clip = stage.locked, stage.base_clip
    undone = bypassed(stage, -10, locked)
    before = fingerprint(locked, clip, vae), fingerprint(undone, clip, vae)
    plain = fingerprint(stage.base, clip, vae)
    assert len({plain.sha256, *(each.sha256 for each in before)}) == 3
    with pytest.raises(SafetyError):
        stage.run(undone)()
    assert (fingerprint(locked, clip, vae), fingerprint(undone, clip, vae)) == before
    assert fingerprint(stage.base, clip, vae) == plain


@pytest.mark.parametrize("name", [*FORMATS, SCALED])
def test_a_quantised_model_is_told_loaded_and_patched_or_not(stage, vae, unloaded, name):
    """ComfyUI can't list the weights of such a model that it would patch."""
    model, other = quantised("Flux", name), zoo.build("Flux")
    key = "diffusion_model.double_blocks.0.img_attn.proj.weight"
    patched = model.clone()
    shape = model.model.get_parameter(key).shape
    patched.add_patches({key: ("diff", (torch.ones(shape),))}, 0.1)
    of = [fingerprint(each, stage.base_clip, vae) for each in (model, patched, other)]
    assert len({each.sha256 for each in of}) == 3 and not any(each.untold for each in of)
    comfy.model_management.load_models_gpu([patched])
    again = [fingerprint(each, stage.base_clip, vae) for each in (model, patched)]
    assert again == of[:2] and patched.backup
    assert fingerprint(quantised("Flux", name), stage.base_clip, vae) == of[0]


def test_settings_and_hooks_of_the_text_encoder_count(stage, vae):
    clip = stage.base_clip
    skipped = [nodes.CLIPSetLastLayer().set_last_layer(clip, layer)[0] for layer in (-1, -2)]
    group = stage.lora_hook(0.0, 0.5)
    held = hooks.SetClipHooks().apply_hooks(clip, False, True, group)[0]
    found = [fingerprint(stage.base, each, vae) for each in (clip, *skipped, held)]
    assert len({each.sha256 for each in found}) == 4 and not any(each.untold for each in found)
    held.encode_from_tokens_scheduled(held.tokenize("a cat"))
    assert fingerprint(stage.base, held, vae) == found[-1]


def test_what_changes_while_it_samples_can_not_be_told(stage, vae):
    """APG and SAG keep a tensor from step to step, in a variable that their functions write to."""
    clip = stage.base_clip
    for made in (
        apg.APG.execute(stage.base, 1.0, 5.0, 0.5).args[0],
        sag.SelfAttentionGuidance.execute(stage.base, 0.5, 2.0).args[0],
        patched("set_attachments", lambda _: torch.Generator(), "mine")(stage, 1),
    ):
        assert len(fingerprint(made, clip, vae).untold) >= 1
    assert "running_avg" in "".join(
        fingerprint(apg.APG.execute(stage.base, 1.0, 5.0, 0.5).args[0], clip, vae).untold
    )


@pytest.mark.long
def test_the_same_file_loaded_twice_and_in_another_process_is_the_same_model(
    stage, vae, models, tmp_path
):
    code = f"""
import sys
sys.path.insert(0, {str(PACK / "tests" / "host")!r})
from modular_safety_lora.host.comfyui import enter_comfyui, load_checkpoint
enter_comfyui()
from pathlib import Path
import comfy_extras.nodes_freelunch as freelunch
from modular_safety_lora.host.fingerprint import fingerprint
from modular_safety_lora.lab import zoo
model, clip, _ = load_checkpoint(Path(sys.argv[1]))
freed = freelunch.FreeU.execute(model, 5.0, 1.0, 0.9, 0.2).args[0]
for each in (model, freed):
    print(fingerprint(each, clip, zoo.vae("SD15")).sha256)
"""
    file = models / "checkpoints" / stage.checkpoint
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [
        fingerprint(each, stage.base_clip, vae).sha256
        for each in (stage.base, CHANGES["FreeU"](stage, 1))
    ]
