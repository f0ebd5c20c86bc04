"""The text encoder has a canary too: what changes what it gives stops it, and nothing else does."""

import gc
from contextlib import ExitStack

import comfy.model_management
import comfy.utils
import overwriting
import pytest
import tampering
import torch
import zoo_arms
from canaries import Held, safety_of
from modular_safety_lora.host.prompts import encode_texts
from modular_safety_lora.merge.merge import merge
from modular_safety_lora.merge.on_model import KEY
from modular_safety_lora.modules.errors import SafetyError

import nodes

pytestmark = pytest.mark.usefixtures("one_thread")
LAYER = "clip_l.transformer.text_model.encoder.layers.3"
OUT = f"{LAYER}.self_attn.out_proj"


@pytest.fixture(scope="module")
def held(models, parts):
    made = Held(merge(parts[0], [safety_of(models)], (), parts[1]))
    made.base_clip = parts[1]
    return made


def part(patcher, name: str = OUT) -> torch.nn.Module:
    return patcher.model.get_submodule(name)


def forward(patcher, undo):
    layer = part(patcher)
    tampering.put(undo, layer, "forward", tampering.scaled(layer.forward, 0.5))


def of_the_class(patcher, undo):
    kind = type(part(patcher, f"{LAYER}.self_attn"))

    def other(self, *args, _own=kind.forward, **kwargs):
        return 0.5 * _own(self, *args, **kwargs)

    tampering.put(undo, kind, "forward", other)


def hook(patcher, undo):
    undo.callback(part(patcher).register_forward_hook(lambda m, x, y: 0.5 * y).remove)


def weight(patcher, undo):
    found = part(patcher, f"{LAYER}.mlp.fc2").weight
    overwriting.write(undo, found, 0.5 * found)


def bias(patcher, undo):
    found = part(patcher, f"{LAYER}.mlp.fc2").bias
    overwriting.write(undo, found, found + torch.linspace(-1, 1, len(found)))


def as_the_base(patcher, undo):
    for key in patcher.backup:
        found = comfy.utils.get_attr(patcher.model, key)
        overwriting.write(undo, found, patcher.backup[key].weight)


def weight_function(patcher, undo):
    layer = part(patcher)
    tampering.put(undo, layer, "weight_function", [*layer.weight_function, lambda w: 0.5 * w])


def tokens(patcher, undo):
    """Every word's embedding is another's."""
    found = part(patcher, "clip_l.transformer.text_model.embeddings.token_embedding").weight
    overwriting.write(undo, found, found.roll(1, dims=0))


def no_number(patcher, undo):
    found = part(patcher, f"{LAYER}.mlp.fc2").weight
    overwriting.write(undo, found, torch.full_like(found, torch.nan))


def encode(patcher, undo):
    model = patcher.model
    own = model.encode_token_weights

    def other(tokens):
        text, *rest = own(tokens)
        return (0.5 * text, *rest)

    tampering.put(undo, model, "encode_token_weights", other)


CHANGES = {
    "forward of an instance": (forward, f"patched forward of {OUT}"),
    "forward of a class": (of_the_class, "patched forward of the class CLIPAttention"),
    "a hook": (hook, f"hook on {OUT}"),
    "a weight": (weight, f"weights written over in {LAYER}.mlp.fc2.weight"),
    "a bias": (bias, f"weights written over in {LAYER}.mlp.fc2.bias"),
    "safety out of the weights in memory": (as_the_base, "weights written over in"),
    "a weight function": (weight_function, f"function on the weights of {OUT}"),
    "other tokens": (tokens, "weights written over in clip_l"),
    "weights that are no numbers": (no_number, "weights written over in"),
    "encode_token_weights": (encode, "patched encode_token_weights of"),
}


def text(held) -> torch.Tensor:
    return encode_texts(held.clip, ["nude"])["nude"][0][0]


OFTEN = (
    "forward of an instance",
    "a hook",
    "a weight",
    "other tokens",
    "weights that are no numbers",
)
OFTEN += ("encoded again", "CLIP skip", "streaming")


def tried(names) -> list:
    """Some in every run, the others `long`."""
    return [pytest.param(each, marks=[pytest.mark.long] * (each not in OFTEN)) for each in names]


@pytest.mark.parametrize("name", tried(CHANGES))
def test_a_change_of_what_it_gives_stops_it_by_name(held, name):
    change, words = CHANGES[name]
    before, canary = text(held), held.clip.patcher.get_attachment(KEY).canary
    with ExitStack() as undo:
        change(held.clip.patcher, undo)
        found = canary.faults(held.clip.patcher)
        assert found and found[0].startswith(words)
        with pytest.raises(SafetyError, match="is not whole on the model that samples"):
            text(held)
    assert torch.equal(text(held), before)
    assert canary.faults(held.clip.patcher) == []


def skipped(held):
    clip = nodes.CLIPSetLastLayer().set_last_layer(held.clip, -2)[0]
    assert not torch.equal(encode_texts(clip, ["nude"])["nude"][0][0], text(held))


def streaming(held):
    with zoo_arms.memory(0.0):
        assert text(held).isfinite().all()


def unloaded(held):
    comfy.model_management.unload_all_models()
    gc.collect()


def long_and_weighted(held):
    encode_texts(held.clip, ["a (nude:1.3) person, " * 40, "", "(a:0.2) b"])


def cloned(held):
    nodes.CLIPTextEncode().encode(held.clip.clone(), "a picture")


SEQUENCES = {
    "encoded again": text,
    "the base's between": lambda held: encode_texts(held.base_clip, ["nude"]),
    "CLIP skip": skipped,
    "streaming": streaming,
    "unloaded": unloaded,
    "a picture between": lambda held: held.picture(),
    "long and weighted prompts": long_and_weighted,
    "a clone": cloned,
}


@pytest.mark.parametrize("name", tried(SEQUENCES))
def test_what_means_no_harm_does_not(held, name):
    before = text(held)
    SEQUENCES[name](held)
    assert torch.allclose(text(held), before, atol=1e-4)
