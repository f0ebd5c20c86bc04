"""A change whose factors stand for a tensor far larger than the weight is refused, and not made."""

import formats
import merging
import pytest
import torch
from comfy.lora import load_lora
from modular_safety_lora.merge import changes, merge, sizes
from modular_safety_lora.modules.errors import SafetyError, ShapeMismatch

LAYER = merging.LINEAR[0]
FORMATS = ("Lora", "Dora", "Loha", "Lokr", "Oft", "Boft", "Glora", "Full")


def ones(**shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    return {name: torch.ones(shape) for name, shape in shapes.items()}


# small files for 10^10 values and more, by what makes them large
TALL, WIDE, LONG = (100_000, 1), (1, 100_000), (1, 1, 1000, 1000)
BOMBS = {
    "LoKr": ones(lokr_w1=(1000, 1000), lokr_w2=(1000, 1000)),
    "LoKr of low rank": ones(lokr_w1=(2, 2), lokr_w2_a=TALL, lokr_w2_b=WIDE),
    "LoKr with a core": ones(lokr_w1=(2, 2), lokr_w2_a=(1, 999), lokr_w2_b=(1, 99), lokr_t2=LONG),
    "LoHa": ones(hada_w1_a=TALL, hada_w1_b=WIDE, hada_w2_a=TALL, hada_w2_b=WIDE),
    "LoHa with a core": ones(
        **{"hada_w1_a": (1, 999), "hada_w1_b": (1, 99), "hada_t1": LONG},
        **{"hada_w2_a": (1, 999), "hada_w2_b": (1, 99), "hada_t2": LONG},
    ),
    "GLoRA": {
        f"{name}.weight": value
        for name, value in ones(a1=(320, 2), a2=(2, 320), b1=(100_000, 2), b2=(2, 100_000)).items()
    },
    "LoRA with a core": {
        "lora_up.weight": torch.ones(320, 1),
        "lora_down.weight": torch.ones(1, 99_999),
        "lora_mid.weight": torch.ones(LONG),
    },
    "OFT": ones(oft_blocks=(1, 100_000, 1)) | {"alpha": torch.tensor(1.0)},
    "BOFT": ones(oft_blocks=(1, 1, 100_000, 1)) | {"alpha": torch.tensor(1.0)},
}


@pytest.mark.parametrize("kind", BOMBS)
def test_what_needs_a_tensor_far_larger_than_the_weight_is_refused(checkpoint, shapes, kind):
    name = f"lora_unet_{LAYER.replace('.', '_')}"
    task = merging.task({f"{name}.{part}": value for part, value in BOMBS[kind].items()})
    held = merging.safety(formats.Lora(shapes, 1).tensors())
    with pytest.raises(SafetyError, match=r"it needs a tensor of \d.*e\+\d+ values for a weight"):
        merge.merge(checkpoint[0], [held], [merge.Task(task)])


@pytest.mark.parametrize("kind", FORMATS)
def test_a_change_of_the_weights_own_size_is_not(shapes, kind, monkeypatch):
    shape = shapes[LAYER]
    tensors = getattr(formats, kind)({LAYER: shape}, 1).tensors()
    found = load_lora(tensors, {f"diffusion_model.{LAYER}": "weight"}, log_missing=False)
    change = changes.Change(1.0, found["weight"])
    sizes.check_size(change, shape)
    monkeypatch.setattr(sizes, "LIMIT", 0.9)  # and it was looked at as far as its whole difference
    if kind not in ("Lora", "Dora", "Full"):
        with pytest.raises(ShapeMismatch):
            sizes.check_size(change, shape)
