"""Where a file's tensors land: by any tool's names, and on parts of fused weights."""

import comfy.lora
import comfy.utils
import formats
import merging
import pytest
import torch
from modular_safety_lora.merge import coverage, merge
from modular_safety_lora.merge.changes import Change
from modular_safety_lora.merge.patches import TaskChanges


@pytest.mark.parametrize("kind", formats.LINEAR)
def test_what_lands_is_what_the_stock_parser_lands(checkpoint, shapes, kind):
    tensors = kind(shapes, 3).tensors()
    names = coverage.key_map(checkpoint[0])
    ours = coverage.cover(
        merging.task(tensors), names, checkpoint[0].model.state_dict().keys(), False
    )
    stock = comfy.lora.load_lora(dict(tensors), names)
    assert ours.patches.keys() == stock.keys() and len(stock) == len(shapes)
    assert ours.matched == set(tensors) and ours.unused == {} and ours.broken == {}
    for target, value in stock.items():
        mine = ours.patches[target]
        assert type(mine) is type(value)
        pairs = zip(coverage._tensors(mine), coverage._tensors(value), strict=True)
        assert all(a is b for a, b in pairs)


def test_kohya_diffusers_and_peft_names_land_on_the_same_layers(checkpoint, shapes):
    """The same LoRA under three names gives the same weights; PEFT itself writes the PEFT file."""
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.to_q, self.to_k = torch.nn.Linear(320, 320), torch.nn.Linear(768, 320)

    torch.manual_seed(9)
    peft = get_peft_model(
        Two(),
        LoraConfig(r=4, lora_alpha=4, target_modules=["to_q", "to_k"], init_lora_weights=False),
    )
    trained = get_peft_model_state_dict(peft)
    block = "input_blocks.1.1.transformer_blocks.0"
    to_ours = {"to_q": f"{block}.attn1.to_q", "to_k": f"{block}.attn2.to_k"}
    unet = comfy.utils.unet_to_diffusers(checkpoint[0].model.model_config.unet_config)
    to_diffusers = {ours: name for name, ours in unet.items()}
    files = {"peft": {}, "kohya": {}, "diffusers": {}}
    for key, value in trained.items():
        layer, half = key.removeprefix("base_model.model.").split(".", 1)
        ours = to_ours[layer]
        kohya = "lora_down.weight" if "lora_A" in half else "lora_up.weight"
        diffusers = (
            to_diffusers[f"{ours}.weight"].removesuffix(".weight").replace(".to_", ".processor.to_")
        )
        files["peft"][f"diffusion_model.{ours}.{half}"] = value
        files["kohya"][f"lora_unet_{ours.replace('.', '_')}.{kohya}"] = value
        files["diffusers"][f"unet.{diffusers}_{kohya.replace('lora_', 'lora.')}"] = value
    good = merging.safety(formats.Lora(shapes, 1).tensors())
    merged = [
        merge.merge(checkpoint[0], [good], [merge.Task(merging.task(each, name))])
        for name, each in files.items()
    ]
    for result in merged:
        assert result.report["modules"][1]["keys_matched"] == 4
    for layer, ours in to_ours.items():
        down, up = (trained[f"base_model.model.{layer}.lora_{side}.weight"] for side in "AB")
        for result in merged:
            change = merging.effective(result.model, ours).double() - merging.effective(
                merge.merge(checkpoint[0], [good]).model, ours
            )
            assert torch.allclose(change, (up @ down).double(), atol=1e-6)


def test_a_part_of_a_fused_weight_is_changed_alone(checkpoint):
    """Flux, SD3 and others map q, k and v onto parts of one weight.

    The offsets are tried with changes that need W0 as well.
    """

    w0 = torch.randn(12, 8, generator=torch.Generator().manual_seed(1))
    parts = {"q": (0, 0, 4), "v": (0, 8, 4)}
    kinds = {
        "q": formats.Dora({"q": torch.Size([4, 8])}, 1),
        "v": formats.Lora({"v": torch.Size([4, 8])}, 2),
    }

    members, expected = [], w0.double().clone()
    for name, module in kinds.items():
        named = {
            key.removeprefix("diffusion_model."): value for key, value in module.tensors().items()
        }
        value = comfy.lora.load_lora(named, {name: "w"}, log_missing=False)["w"]
        change = Change(0.5, value, parts[name])
        members.append((change.strength, change.value, change.offset, change.function))
        expected.narrow(*parts[name]).add_(0.5 * module.delta(name, w0.narrow(*parts[name])))
    result = comfy.lora.calculate_weight(
        [(1.0, TaskChanges(set(), ([], tuple(members))), 1.0, None, None)], w0.clone(), "w"
    )
    assert merging.relative_error(result, expected) < 1e-6
