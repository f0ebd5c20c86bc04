"""What anchoring in every third step costs the anchor: how far the concept moves.

It is compared with an anchor in each step and none.

    .venv/bin/python -m modular_safety_lora.lab.benchmarks anchor [--seeds 3] [--steps 150]

On the small seeded checkpoint a safety LoRA is trained with ESD-x for "nude" and "naked person";
task LoRAs then learn latents of random noise patterns under one caption, with the safety module
frozen in the forward pass. `drift` is

    |d_t - d_s|^2 / |d_s|^2   with   d = y(x_t, c) - y(x_t, null),

d_s of the safe base and d_t of safe base and task, on noisy latents that were not trained on: for a
prompt that the anchor saw, and one that it did not. `task loss` is the mean of the last tenth of
the steps. Random weights know no concept, so this measures how well a direction is held, not
safety.
"""

import statistics
import tempfile
from pathlib import Path

import torch

from ...host.denoiser import Denoiser
from ...host.prompts import encode_texts
from ...merge.merge import Task, merge
from ...training.adapter_settings import AdapterSettings
from ...training.data import of_sockets
from ...training.engine.job import TrainingJob
from ...training.objectives import Erasure
from ...training.safety import train_safety
from ...training.settings import Settings
from . import harness, models

SEEN, UNSEEN, CAPTION = "nude", "a photo without clothes", "a ball on stripes"
ARMS = {
    "frozen (no anchor)": {"safety_mode": "frozen"},
    "anchored, every step": {"safety_mode": "anchored", "anchor_every": 1},
    "anchored, every 2nd": {"safety_mode": "anchored", "anchor_every": 2},
    "anchored, every 3rd": {"safety_mode": "anchored", "anchor_every": 3},
    "anchored, every 6th": {"safety_mode": "anchored", "anchor_every": 6},
}


class World:
    """The checkpoint with a safety module of its own, and pictures to learn."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.model, clip, _ = models.small()
        concepts = [SEEN, "naked person"]
        self.texts = encode_texts(clip, [*concepts, UNSEEN, CAPTION])
        generator = torch.Generator().manual_seed(1)
        pattern = torch.randn(1, 4, 8, 8, generator=generator)
        latents = pattern + 0.3 * torch.randn(4, 4, 8, 8, generator=generator)
        self.dataset = of_sockets([{"samples": latents}], [self.texts[CAPTION]])
        settings = Settings(steps=60, learning_rate=3e-3, adapter=AdapterSettings(4, 4.0))
        job, erasure = TrainingJob(folder / "safety.safetensors"), Erasure(sampling_steps=5)
        self.safety = train_safety(
            self.model, self.texts, concepts, settings, job, erasure=erasure, resolution=64
        ).module
        self.concepts = concepts

    def task(self, name: str, changed: dict, seed: int, steps: int):
        """(module, task loss) of one arm."""
        result = models.trained(
            self.model,
            self.dataset,
            self.folder / f"{name}-{seed}.safetensors",
            steps,
            rank=4,
            texts=self.texts,
            safety=[self.safety],
            concepts=self.concepts,
            batch_size=2,
            learning_rate=1e-3,
            seed=seed,
            **changed,
        )
        return result.module, result.report["loss"]["last"]["task"]

    def directions(self, prompt: str, tasks: list):
        """d for 16 noisy latents never trained on, on the safe base with some task modules."""
        denoiser = Denoiser(merge(self.model, [self.safety], tasks).model)
        generator, found = torch.Generator().manual_seed(99), []
        with torch.no_grad():
            for _ in range(16):
                clean, noise = torch.randn(2, 1, 4, 8, 8, generator=generator)
                sigma = denoiser.sigmas(1, generator)
                noisy = denoiser.noised(clean, noise, sigma)
                both = denoiser.conditions([self.texts[prompt], self.texts[""]], noisy)
                output = denoiser.output(torch.cat([noisy, noisy]), torch.cat([sigma, sigma]), both)
                found.append(output[0] - output[1])
        return torch.stack(found)

    def drift(self, prompt: str, module) -> float:
        held, moved = self.directions(prompt, []), self.directions(prompt, [Task(module)])
        return ((moved - held).square().sum() / held.square().sum()).item()


FLAGS = {"seeds": 3, "steps": 150}


def main(options) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        harness.head("mode", "drift, prompt seen", "drift, prompt unseen", "task loss")
        for name, changed in ARMS.items():
            rows = []
            for seed in range(options.seeds):
                module, loss = world.task(name, changed, seed, options.steps)
                rows.append((world.drift(SEEN, module), world.drift(UNSEEN, module), loss))
            columns = list(zip(*rows, strict=True))
            every = (" ".join(f"{value:.3f}" for value in column) for column in columns)
            means = (f"{statistics.mean(column):.3f}" for column in columns)
            harness.row(
                name, *(f"{mean} ({all_})" for mean, all_ in zip(means, every, strict=True))
            )
