"""The lock against what a stock ComfyUI offers.

Attacks are stopped, what is beyond the lock is declared, and benign use works.
"""

import os
import re
from dataclasses import replace

import comfy.sd
import comfy_extras.nodes_apg as apg
import comfy_extras.nodes_cfg as cfg
import comfy_extras.nodes_differential_diffusion as differential
import comfy_extras.nodes_easycache as easycache
import comfy_extras.nodes_freelunch as freelunch
import comfy_extras.nodes_hypertile as hypertile
import comfy_extras.nodes_model_advanced as advanced
import comfy_extras.nodes_model_merging as mixing
import comfy_extras.nodes_pag as pag
import comfy_extras.nodes_sag as sag
import comfy_extras.nodes_tcfg as tcfg
import comfy_extras.nodes_tomesd as tomesd
import pytest
import torch
from attack_stage import load, stopped, unchanged
from attacks import ATTACKS, BEYOND, CANCELLED
from modular_safety_lora.lab import assets
from modular_safety_lora.lab.server import PACK

import nodes

pytestmark = pytest.mark.usefixtures("unloaded")
DOCUMENT = PACK / "docs" / "threat-model.md"


@pytest.fixture(scope="module")
def stage(stage):
    """One merge for all that is done to it here."""
    return replace(stage, kept={})


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_stopped_and_the_next_run_works(stage, name):
    stopped(stage, ATTACKS[name])


@pytest.mark.parametrize("name", BEYOND)
def test_what_is_declared_out_of_reach_is(stage, name):
    """When the lock learns to see one of these, it moves to the attacks."""
    assert BEYOND[name][1](stage)().isfinite().all()


def attention_patch(n, context, value, extra):
    """What IP-Adapter does to a cross-attention, in small: more tokens for keys and values."""
    return n, torch.cat([context, context[:, :4]], 1), torch.cat([value, value[:, :4]], 1)


def adapted(model):
    model = model.clone()
    model.set_model_attn2_patch(attention_patch)
    return model


def wrapped(model):
    model = model.clone()
    model.set_model_unet_function_wrapper(
        lambda apply, args: apply(args["input"], args["timestep"], **args["c"])
    )
    return model


def zero(stage) -> tuple:
    """A LoRA's tensors and strengths of 0."""
    return dict(stage.safety.tensors), 0.0, 0.0


def configured(model):
    model = model.clone()
    model.add_object_patch(
        "diffusion_model.num_heads", model.get_model_object("diffusion_model.num_heads")
    )
    return model


def controlled(stage):
    """A ControlNet of the checkpoint's shape, seeded."""
    import comfy.cldm.cldm
    import comfy.controlnet
    import comfy.ops

    shape = {
        key: value
        for key, value in assets.ONE_LEVEL.items()
        if key not in ("out_channels", "transformer_depth_output")
    }
    torch.manual_seed(1)
    network = comfy.cldm.cldm.ControlNet(
        **shape, hint_channels=3, operations=comfy.ops.disable_weight_init
    )
    for value in network.parameters():
        torch.nn.init.normal_(value, std=0.01)
    control = comfy.controlnet.ControlNet(network, load_device=torch.device("cpu"))
    run = stage.run()
    positive = nodes.ControlNetApply().apply_controlnet(
        run.positive, control, torch.rand(1, 64, 64, 3), 0.5
    )[0]
    return replace(run, positive=positive)


BENIGN = {
    "another sampler and scheduler: dpmpp_2m, karras": lambda s: s.run(
        sampler="dpmpp_2m", scheduler="karras"
    ),
    "another sampler and scheduler: ddim, exponential": lambda s: s.run(
        sampler="ddim", scheduler="exponential"
    ),
    "an ancestral sampler: euler_ancestral, beta": lambda s: s.run(
        sampler="euler_ancestral", scheduler="beta"
    ),
    "ModelSamplingDiscrete": lambda s: s.run(
        advanced.ModelSamplingDiscrete().patch(s.locked, "v_prediction", False)[0]
    ),
    "ModelSamplingContinuousEDM": lambda s: s.run(
        advanced.ModelSamplingContinuousEDM().patch(s.locked, "eps", 120.0, 0.002)[0]
    ),
    "ModelSamplingSD3 (a shift)": lambda s: s.run(
        advanced.ModelSamplingSD3().patch(s.locked, 3.0)[0]
    ),
    "RescaleCFG": lambda s: s.run(advanced.RescaleCFG().patch(s.locked, 0.7)[0]),
    "ModelComputeDtype": lambda s: s.run(advanced.ModelComputeDtype().patch(s.locked, "bf16")[0]),
    "FreeU_V2": lambda s: s.run(freelunch.FreeU_V2.execute(s.locked, 1.3, 1.4, 0.9, 0.2)[0]),
    "TomePatchModel (token merging)": lambda s: s.run(
        tomesd.TomePatchModel.execute(s.locked, 0.3)[0]
    ),
    "HyperTile": lambda s: s.run(hypertile.HyperTile.execute(s.locked, 256, 2, 0, False)[0]),
    "PerturbedAttentionGuidance": lambda s: s.run(
        pag.PerturbedAttentionGuidance.execute(s.locked, 3.0)[0]
    ),
    "SelfAttentionGuidance": lambda s: s.run(
        sag.SelfAttentionGuidance.execute(s.locked, 0.5, 2.0)[0]
    ),
    "DifferentialDiffusion": lambda s: s.run(
        differential.DifferentialDiffusion.execute(s.locked)[0]
    ),
    "APG": lambda s: s.run(apg.APG.execute(s.locked, 1.0, 5.0, 0.0)[0]),
    "Tangential damping CFG": lambda s: s.run(tcfg.TCFG.execute(s.locked)[0]),
    "CFGZeroStar": lambda s: s.run(cfg.CFGZeroStar.execute(s.locked)[0]),
    "EasyCache": lambda s: s.run(
        easycache.EasyCacheNode.execute(s.locked, 0.2, 0.15, 0.95, False)[0]
    ),
    "an attention patch as IP-Adapter sets": lambda s: s.run(adapted(s.locked)),
    "a wrapper around the network": lambda s: s.run(wrapped(s.locked)),
    "ControlNetApply": controlled,
    "CLIPSetLastLayer": lambda s: s.run(
        clip=nodes.CLIPSetLastLayer().set_last_layer(s.locked_clip, -2)[0]
    ),
    "LoraLoader with a style, before the merge": lambda s: s.run(
        s.merged(model=load(s, s.base, 0.8, file=s.harmless)[0]).model
    ),
    "DualModelGuider with the merged model twice": lambda s: s.run(second=s.locked),
    "DualModelGuider with another merge of the same": lambda s: s.run(second=s.merged().model),
    "LoraLoader at strength 0, after the merge": lambda s: s.run(
        comfy.sd.load_lora_for_models(s.locked, None, *zero(s))[0]
    ),
    "ModelMergeSimple of merged and base, 1": lambda s: s.run(
        mixing.ModelMergeSimple().merge(s.locked, s.base, 1.0)[0]
    ),
    "CreateHookLora at strength 0": lambda s: s.hooked(s.lora_hook(0.0)),
    "a setting of the network as an object patch (FluxKVCache)": lambda s: s.run(
        configured(s.locked)
    ),
}


@pytest.mark.parametrize("name", BENIGN)
def test_benign_use_works(stage, name):
    assert BENIGN[name](stage)().isfinite().all()


def test_after_all_of_it_a_new_merge_and_the_one_that_was_kept_give_the_safe_picture(stage):
    unchanged(stage)


def test_patches_that_leave_weights_alone_are_listed(stage):
    patched = adapted(freelunch.FreeU_V2.execute(wrapped(stage.base), 1.3, 1.4, 0.9, 0.2)[0])
    shifted = advanced.ModelSamplingDiscrete().patch(patched, "eps", False)[0]
    listed = {
        (each["kind"], each["name"]) for each in stage.merged(model=shifted).report["other_patches"]
    }
    assert {
        ("model object", "model_sampling"),
        ("block or attention patch", "attn2_patch"),
    } <= listed
    assert ("sampling function", "model_function_wrapper") in listed and stage.merged().report[
        "other_patches"
    ] == []


def table() -> str:
    rows = [
        "| what is done with stock nodes | the lock | with `require_lock` |",
        "| --- | --- | --- |",
    ]
    rows += [f"| {name} | stops it | stops it |" for name in ATTACKS]
    for name, (reason, _) in BEYOND.items():
        policy = "with `allowed_bases` it stops it" if name == CANCELLED else "stops it"
        rows.append(
            f"| {name} | **does not see it**: {reason} |"
            f" {'does not see it' if 'CLIP' in name else policy} |"
        )
    return "\n".join([*rows, "", "Works as without the lock: " + "; ".join(BENIGN) + "."])


def totals() -> str:
    unseen = sum("does not see it |" in line for line in table().splitlines())
    return (
        f"  Of the tried ways to undo a safety LoRA with stock nodes, {len(ATTACKS)} are stopped"
        f" and {len(BEYOND)} are\n  not seen by the lock (an operator can refuse all but {unseen}"
        f" of these); {len(BENIGN)} harmless uses work\n  ([threat model](docs/threat-model.md))."
    )


@pytest.mark.parametrize(
    ("file", "mark", "end", "made"),
    [
        (DOCUMENT, "table", "\n<!-- end of table -->", table),
        (PACK / "README.md", "totals", "\n  <!-- end -->", totals),
    ],
    ids=["threat model", "README"],
)
def test_the_table_and_its_totals_are_what_is_tested_here(file, mark, end, made):
    """MSL_WRITE_TABLE=1 writes them."""
    assert len(ATTACKS) + len(BEYOND) >= 25 and len(BENIGN) >= 12
    text, start = file.read_text(encoding="utf-8"), f"<!-- {mark}: tests/host/test_attacks.py -->\n"
    if os.environ.get("MSL_WRITE_TABLE"):
        found = re.escape(start) + "(.*?)" + re.escape(end.removeprefix("\n"))
        text = re.sub(found, lambda _: start + made() + end, text, flags=re.S)
        file.write_text(text, encoding="utf-8")
    assert start + made() + end in text
