"""A safety change that is not applied stops the run.

Looked at: in memory, at use, in the text encoder, and where ComfyUI applies none.
"""

import comfy.model_management
import comfy.sample
import comfy.sd
import comfy.supported_models
import formats
import merging
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from modular_safety_lora.lab import assets
from modular_safety_lora.merge import merge, on_model
from modular_safety_lora.modules.errors import SafetyError
from torch.utils._python_dispatch import TorchDispatchMode

pytestmark = pytest.mark.usefixtures("unloaded")
KINDS = ("Lora", "Dora", "Loha", "Full")


class OutOfMemory(TorchDispatchMode):
    """The products that make a low-rank change find no memory.

    Neither does a full difference; the network's own products do.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        inner = [
            each.shape[-1] for each in args if isinstance(each, torch.Tensor) and each.ndim == 2
        ]
        if name in ("mm", "addmm", "addmm_") and min(inner, default=99) <= 8:
            raise torch.OutOfMemoryError("no memory for a change")
        return func(*args, **(kwargs or {}))


def sample(model, clip):
    latent = torch.zeros(1, 4, 4, 4)
    texts = clip.encode_from_tokens_scheduled(clip.tokenize("a picture"))
    noise = comfy.sample.prepare_noise(latent, 1)
    return comfy.sample.sample(
        model, noise, 2, 2.0, "euler", "normal", texts, texts, latent, seed=1, disable_pbar=True
    )


@pytest.mark.parametrize("kind", ["Lora", "Loha"])
def test_memory_that_ends_while_the_merged_model_loads_ends_the_run(checkpoint, shapes, kind):
    """ComfyUI's own adapters log it and give the weight back as it was.

    The picture would be the unsafe base's.
    """
    model, clip = checkpoint
    merged = merge.merge(model, [merging.safety(getattr(formats, kind)(shapes, 1).tensors())]).model
    safe = sample(merged, clip)
    comfy.model_management.unload_all_models()
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    with pytest.raises((torch.OutOfMemoryError, SafetyError)), OutOfMemory():
        sample(merged, clip)
    assert all(torch.equal(value, before[name]) for name, value in model.model.state_dict().items())
    assert torch.equal(sample(merged, clip), safe)


@pytest.mark.parametrize("held", [torch.float32, torch.float16, torch.bfloat16])
def test_a_change_that_is_applied_at_use_raises_there(models, held):
    """With little memory ComfyUI leaves the weight unpatched and adds the change for each use."""
    path = str(models / "checkpoints" / assets.CHECKPOINT)
    model = comfy.sd.load_checkpoint_guess_config(
        path, output_clip=False, output_vae=False, model_options={"dtype": held}
    )[0]
    name = merging.LINEAR[1]
    module = formats.Lora(merging.shapes(model, name), 1, size=1.0)
    merged = merge.merge(model, [merging.safety(module.tensors())]).model
    layer = model.model.diffusion_model.get_submodule(name)
    given = torch.randn(2, layer.in_features, generator=torch.Generator().manual_seed(1))
    plain = torch.nn.functional.linear(given, merging.base(model, name))
    merged.load(merged.load_device, lowvram_model_memory=1)
    try:
        assert layer.weight_function, "this must be the case of little memory"
        expected = plain + given @ module.delta(name, merging.base(model, name)).float().T
        assert merging.relative_error(layer(given.to(held)).float(), expected) < 0.01
        assert merged.get_attachment(on_model.KEY).not_computed(merged) == []
        with pytest.raises(torch.OutOfMemoryError), OutOfMemory():
            layer(given.to(held))
    finally:
        merged.detach()


def test_memory_that_ends_while_the_text_encoder_loads_ends_the_run(checkpoint, stage):
    clip = stage.merged().clip
    with pytest.raises(torch.OutOfMemoryError), OutOfMemory():
        clip.encode_from_tokens_scheduled(clip.tokenize("a picture"))
    again = clip.encode_from_tokens_scheduled(clip.tokenize("a picture"))[0][0]
    plain = checkpoint[1].encode_from_tokens_scheduled(checkpoint[1].tokenize("a picture"))[0][0]
    assert not torch.allclose(again, plain)


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_host_swallows_is_an_error_that_names_module_and_weight(
    checkpoint, shapes, kind, monkeypatch
):
    """A fault in the arithmetic itself, of whatever kind the safety module is."""
    merged = merge.merge(
        checkpoint[0], [merging.safety(getattr(formats, kind)(shapes, 1).tensors())]
    ).model

    def broken(*_, **__):
        raise RuntimeError("a kernel failed")

    monkeypatch.setattr(torch, "mm", broken)
    monkeypatch.setattr(torch.Tensor, "addmm_", broken)
    monkeypatch.setattr(torch, "einsum", broken)
    monkeypatch.setattr(
        comfy.model_management, "cast_to_device", broken if kind in ("Full", "Dora") else cast
    )
    with pytest.raises((SafetyError, RuntimeError), match="a kernel failed|could not be applied"):
        comfy.model_management.load_models_gpu([merged])


cast = comfy.model_management.cast_to_device


@pytest.mark.parametrize("held", [torch.float32, torch.float16])
def test_a_change_where_comfyui_applies_none_does_not_fit(held):
    """A parameter beside submodules, or a buffer, is patched by no loader.

    Its patch is listed and never computes.
    """
    config = comfy.supported_models.WAN21_T2V(
        {
            "image_model": "wan2.1",
            "model_type": "t2v",
            "dim": 96,
            "ffn_dim": 64,
            "num_heads": 2,
            "num_layers": 1,
        }
        | {"text_dim": 32, "out_dim": 16, "in_dim": 16, "freq_dim": 32, "text_len": 8}
    )
    config.set_inference_dtype(held, torch.float32)
    network = config.get_model({}, "", torch.device("cpu"))
    for number, value in enumerate(network.parameters()):
        torch.nn.init.normal_(value, std=0.05, generator=torch.Generator().manual_seed(number))
    model = ModelPatcher(network, torch.device("cpu"), torch.device("cpu"))
    key = "diffusion_model.blocks.0.modulation"
    linear = formats.Lora(merging.shapes(model, "blocks.0.self_attn.q"), 1).tensors()
    bare = {f"{key}.diff": torch.ones(network.state_dict()[key].shape)}
    good = merge.merge(model, [merging.safety(linear)]).model
    comfy.model_management.load_models_gpu([good])
    good.pre_run()
    with pytest.raises(
        SafetyError,
        match=r"1 of 4 safety tensors .*modulation.* ComfyUI applies no patch to it",
    ):
        merge.merge(model, [merging.safety(linear | bare)])
    unused = merge.merge(
        model, [merging.safety(linear)], [merge.Task(merging.task(linear | bare))]
    ).report["modules"][1]
    assert list(unused["keys_unused"]) == [f"{key}.diff"]


def without(patcher, lose):
    """A clone with the mark of the patches but not all of the patches, as careless code makes."""
    clone = patcher.clone()
    for key in clone.patches:
        clone.patches[key] = lose(clone.patches[key])
    return clone


LOSES = {
    "every patch": lambda entries: [],
    "what a patch does": lambda entries: [
        (entry[0], ("diff", (torch.zeros(1),)), *entry[2:]) for entry in entries
    ],
}


@pytest.mark.parametrize("lose", LOSES)
def test_weights_that_another_clone_loaded_without_the_change_end_the_run(checkpoint, shapes, lose):
    """ComfyUI asks the mark alone whether weights are loaded.

    The locked model would compute with the other's weights.
    """
    model, clip = checkpoint
    merged = merge.merge(model, [merging.safety(formats.Lora(shapes, 1).tensors())]).model
    comfy.model_management.load_models_gpu([without(merged, LOSES[lose])])
    with pytest.raises(SafetyError, match=r"4 of its 4 changes are not there"):
        sample(merged, clip)
    comfy.model_management.unload_all_models()
    sample(merged, clip)
