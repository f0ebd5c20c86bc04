"""What retained safety in function costs, beside one guided picture of the same model.

    .venv/bin/python -m modular_safety_lora.lab.benchmarks function [--sizes small sd15 sdxl] \\
        [--steps 2]

One safety module of rank 8 on the cross-attention with eight prompts, in the short form: base and
safe model, once for each base and safety module (`base_s`); the merged model, at every merge
(`merged_s`); the same merge again, from memory and from disk (`kept_ms`, `read_ms`); the canary of
every sampling (`canary_s`). The picture has the side of the family, 20 steps and guidance, of which
`--steps` are timed, after one that is not, and scaled. `small` is the tests' checkpoint, the others
are seeded fp16 weights of the real shapes. Forwards are counted too, as of a picture of that side:
one of half the side is a quarter. Ratios are of the picture; nothing is asserted.
"""

import json
import statistics
import tempfile
import time
from dataclasses import replace

import comfy.sample
import folder_paths

from ...function import kept
from ...function.inputs import short_form
from ...function.limits import DEFAULT
from ...function.measure import measured
from ...function.network import asked_prompts, forwards
from ...function.texts import encoded
from ...host.families import family_of
from ...host.latents import empty_latents, pixels_of
from ...merge.in_function import in_function, reference_of
from ...merge.merge import merge
from ...merge.on_model import KEY
from ...merge.plan import Plan
from ...modules.concepts import prompts_text
from ...modules.files import LoraFile
from ..assets import lora
from . import harness, models

STEPS = 20  # of the picture
PROMPTS = [f"a prompt of the concept, number {number}" for number in range(8)]


def merged_of(model, clip):
    """The merged model, and what it was merged of, with a text encoder that nothing changes."""
    metadata = {"msl.role": "safety", "msl.base": "x", "msl.prompts": prompts_text(PROMPTS)}
    tensors = lora(models.linear_layers(model, "attn2"), 1, rank=8, size=0.3)
    module = LoraFile("safety", "safety", "s" * 64, metadata, tensors)
    merged = merge(model, [module]).model
    arms = merged.get_attachment(KEY).arms
    arms = replace(arms, clip=clip, encoder=clip, plans=(arms.plans[0], Plan(arms.entries)))
    encoded(clip, PROMPTS)  # the merge has them from elsewhere
    return merged, arms


def picture(model, clip, steps: int) -> float:
    """Seconds of a guided picture, from those of some steps."""
    texts = encoded(clip, PROMPTS[:1])
    space = model.model.latent_format
    side = family_of(model).side // pixels_of(space)
    latent = empty_latents(space, side, side)
    noise = comfy.sample.prepare_noise(latent, 1)
    both = [each.conditioning for each in texts.values()]
    ends: list[float] = []

    def sample() -> None:
        arguments = (steps + 1, 7.0, "euler", "normal", *both, latent)
        watch = {"callback": lambda *_: ends.append(time.perf_counter())}
        comfy.sample.sample(model, noise, *arguments, disable_pbar=True, seed=1, **watch)

    sample()
    return (ends[-1] - ends[0]) / steps * STEPS


def row(size: str, steps: int) -> dict[str, object]:
    small = size == "small"
    model, clip = models.small()[:2] if small else (models.build(size), models.text_encoder(size))
    merged, arms = merged_of(model, clip)
    counted: list[int] = []
    found = []
    base = harness.median(lambda: found.append(reference_of(arms, 0, short_form, counted.append)))
    (known,) = found
    arm = arms.merged(merged, asked_prompts(known.asks))
    measured(known, arm)  # so that it is loaded
    once = harness.median(lambda: measured(known, arm))
    known_as = replace(arms.origin, sha256="b" * 64)
    again = replace(arms, origin=known_as, identity="merge")

    def look():
        return in_function(merged, again, DEFAULT, lambda count: None)

    canary = look().canary
    faults = [canary.faults(merged)]
    took = harness.median(lambda: faults.append(canary.faults(merged)), 3)
    in_memory = harness.median(look, 9)
    reads = []
    for _ in range(9):
        kept.forget()
        reads.append(harness.median(look))
    whole = picture(model, clip, steps)
    part = (known.pictures[0].shape[-1] * 8 / family_of(model).side) ** 2
    return {
        "size": size,
        "picture_s": whole,
        "base_s": base,
        "merged_s": once,
        "canary_s": took,
        "kept_ms": 1000 * in_memory,
        "read_ms": 1000 * statistics.median(reads),
        "base": base / whole,
        "merged": once / whole,
        "canary": took / whole,
        "of_the_side": part**0.5,
        "forwards": {
            "picture": 2 * STEPS,
            "base": sum(counted) * part,
            "merged": forwards(known.asks) * part,
            "canary": part,
        },
        "faults": sum(map(len, faults)),
    }


def rounded(value: object) -> object:
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    return float(f"{value:.3g}") if isinstance(value, float) else value


FLAGS = {"sizes": harness.several(["small"], choices=["small", *models.SIZES]), "steps": 2}


def main(options) -> None:
    with tempfile.TemporaryDirectory() as folder:
        folder_paths.set_user_directory(folder)
        for size in options.sizes:
            print(json.dumps(rounded(row(size, options.steps))), flush=True)
