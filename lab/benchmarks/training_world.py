"""What the training benchmarks train: a small model, pictures, and both trainers with settings."""

import tempfile
from pathlib import Path

import torch
from comfy_extras.nodes_train import TrainLoraNode

from ...host.prompts import encode_texts
from ...modules.files import load_safety
from ...training.data import of_sockets
from .. import assets, zoo
from . import models

BATCH, RANK, PICTURES = 2, 8, 4
OURS = {
    "ours, defaults": {},
    "ours, same layers": {"targets": "all"},
    "ours, same layers, checkpointing": {"targets": "all", "gradient_checkpointing": True},
    "ours, anchored": {"safety_mode": "anchored"},
    "ours, anchored in every step": {"safety_mode": "anchored", "anchor_every": 1},
    "ours, anchored, same layers": {"targets": "all", "safety_mode": "anchored"},
}
STOCK = {
    "stock, defaults": {"bypass_mode": False, "gradient_checkpointing": True},
    "stock, bypass": {"bypass_mode": True, "gradient_checkpointing": False},
    "stock, bypass, checkpointing": {"bypass_mode": True, "gradient_checkpointing": True},
}
SD15 = "SD15"
SIZES = {  # of the networks: some 8 million weights
    "Flux": {"hidden_size": 256, "num_heads": 8, "depth": 2, "depth_single_blocks": 4},
    "QwenImage": {"num_attention_heads": 8, "num_layers": 4},
}
SIDE = 32  # latents, of a picture for them


class World:
    """A loaded model and a dataset, as the nodes of a workflow hand them on."""

    def __init__(self, name: str, precision: str = "fp32"):
        self.precision = precision
        if name == SD15:
            self._checkpoint()
        else:
            self._network(name)

    def _checkpoint(self) -> None:
        self.model, clip, loras = models.small()
        self.texts = encode_texts(clip, ["a ball on stripes", "nude"])
        generator = torch.Generator().manual_seed(1)
        self.latents = [{"samples": torch.randn(PICTURES, 4, 8, 8, generator=generator)}]
        self.safety = load_safety(loras / assets.SAFETY, assets.SAFETY)

    def _network(self, family: str) -> None:
        def made(disable_dynamic: bool = False) -> object:
            return zoo.build(family, sizes=SIZES[family])

        self.model = made()
        self.model.cached_patcher_init = (made, ())  # the stock trainer loads it once more
        texts = zoo.conditionings(family, 2, tokens=64)
        self.texts = dict(zip(("a ball on stripes", "nude"), texts, strict=True))
        channels, *frames = zoo.TWINS[family].latent[:-2]
        generator = torch.Generator().manual_seed(1)
        shape = (PICTURES, channels, *frames, SIDE, SIDE)
        self.latents = [{"samples": torch.randn(shape, generator=generator)}]
        self.safety = None

    def train(self, arm: str, steps: int) -> None:
        if arm in OURS:
            self._ours(OURS[arm], steps)
        else:
            self._stock(STOCK[arm], steps)

    def _ours(self, changed: dict, steps: int) -> None:
        safety = [self.safety] if self.safety else []
        with tempfile.TemporaryDirectory() as folder:
            models.trained(
                self.model,
                of_sockets(self.latents, [self.texts["a ball on stripes"]]),
                Path(folder, "task.safetensors"),
                steps,
                rank=RANK,
                texts=self.texts,
                safety=safety,
                concepts=["nude"],
                batch_size=BATCH,
                precision=self.precision,
                **changed,
            )

    def _stock(self, changed: dict, steps: int) -> None:
        defaults = {
            each.id: each.default
            for each in TrainLoraNode.define_schema().inputs
            if hasattr(each, "default")
        }
        same = {
            "batch_size": BATCH,
            "rank": RANK,
            "training_dtype": self.precision,
            "lora_dtype": "fp32",
            "steps": steps,
        }
        inputs = {"latents": self.latents[0], "positive": self.texts["a ball on stripes"]}
        given = {**defaults, **same, **changed, **inputs, "model": self.model}
        TrainLoraNode.execute(**{name: [value] for name, value in given.items()})
