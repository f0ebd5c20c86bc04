"""What an extraction keeps of a safe model, by form; and what one of a real size costs.

    .venv/bin/python -m modular_safety_lora.lab.benchmarks extract [--families SD15 Flux] \\
        [--steps 60]
    .venv/bin/python -m modular_safety_lora.lab.benchmarks extract --real sd15

The safe models are made here: all weights of a small model of a family that a LoRA can change,
fine-tuned by the objective of ESD. Base and safe model are both in fp32, or both in bf16. A cell is
the share of the change's square that is kept in the weights, and what is left of what the safe
model changes of the prompts, in pictures of 64 pixels. Each family's rows are kept in
results/extract.json, of which results/extract.md is made. With `--real` the weights are seeded ones
of the real shapes, fp16, those of attention changed; the seconds and the memory are of the
extraction without the measurement in function.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from ...drawing import markdown
from ...extraction import extract as room
from ...extraction.extract import extract
from ...extraction.loaded import Loaded
from ...extraction.settings import Extraction
from ...function.inputs import Moments
from ...host.denoiser import Denoiser
from ...host.families import of_class
from ...host.gradients import kept
from ...host.lending import lent
from ...host.prompts import encode_texts
from ...host.weights import patchable
from ...modules.sealing import Sealing
from ...storage.whole import write_text
from .. import zoo
from . import harness, models

PROMPTS = ("nude person", "a naked woman")
RANKS = (4, 8, 16, 32, 64)
HELD = {"fp32": torch.float32, "bf16": torch.bfloat16}
FORMS = {
    **{f"rank {rank}": Extraction(form="rank", rank=rank) for rank in RANKS},
    "share 0.95": Extraction(),
    "full": Extraction(form="full"),
}
# as wide as a rank of 64 leaves something out
SIZES: Mapping[str, Mapping[str, object]] = {
    "SD15": {"model_channels": 256},
    "SDXL": {"model_channels": 128},
    "Flux": {"hidden_size": 256, "num_heads": 8},
    "ZImage": {},
}
RESULTS = Path(__file__).parent / "results" / "extract.json"
FAMILIES = [*SIZES]
TABLE = RESULTS.with_suffix(".md")


def fine_tuned(model, clip, steps: int, rate: float = 1e-4):
    """The weights of a MODEL held in fp32, by name.

    All that ComfyUI's LoRAs can change are tuned by ESD's objective (eta 1) on noise.
    """
    texts, generator = encode_texts(clip, PROMPTS), torch.Generator().manual_seed(1)
    with lent(model) as own:
        denoiser = Denoiser(own)
        network = denoiser.base.diffusion_model
        before = {name: value.detach().clone() for name, value in network.state_dict().items()}
        empty = denoiser.empty(64).expand(len(PROMPTS), *denoiser.empty(64).shape[1:])
        batches, targets = [], []
        for _ in range(4):
            noise = torch.randn(empty.shape, generator=generator)
            sigma = denoiser.sigmas(len(noise), generator)
            noisy = denoiser.noised(empty, noise, sigma)
            concept = denoiser.conditions([texts[each] for each in PROMPTS], noisy)
            null = denoiser.conditions([texts[""]] * len(PROMPTS), noisy)
            with torch.no_grad():
                without = denoiser.output(noisy, sigma, null)
                targets.append(2.0 * without - denoiser.output(noisy, sigma, concept))
            batches.append((noisy, sigma, concept))
        held = patchable(denoiser.base)  # Z-Image's padding tokens no LoRA can change
        trained = [
            each.requires_grad_()
            for name, each in network.named_parameters()
            if f"diffusion_model.{name}" in held
        ]
        adam = torch.optim.Adam(trained, rate)
        for step in range(steps):
            adam.zero_grad()
            with kept(True):  # Flux writes over what its gradients need
                y = denoiser.output(*batches[step % len(batches)])
                (y - targets[step % len(batches)]).square().mean().backward()
            adam.step()
        after = {name: value.detach().clone() for name, value in network.state_dict().items()}
        network.requires_grad_(False)
        network.load_state_dict(before)
    return {f"diffusion_model.{name}": value for name, value in after.items()}


def kept_by(family: str, steps: int, held: str) -> dict[str, list[float | None]]:
    """By form, what is kept of a safe model in the weights and in function."""
    clip, dtype = models.small()[1], HELD[held]
    sizes = {**zoo.AS_CHECKPOINT[family], **SIZES[family]}
    safe = fine_tuned(zoo.build(family, values=dtype, sizes=sizes), clip, steps)
    found: dict[str, list[float | None]] = {}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "safe.safetensors")
        save_file({f"model.{key}": value.to(dtype) for key, value in safe.items()}, source)
        base = Loaded(zoo.build(family, dtype, sizes=sizes), clip)
        for form, how in FORMS.items():
            sealing, small = Sealing("nudity", prompts=PROMPTS), Moments(resolution=64)
            output = Path(folder, f"{form}.safetensors")
            report = extract(base, source, output, how, sealing, moments=small).report
            found[form] = [report["kept"], report["function"]["retained"]]
    return found


def as_table(rows: Mapping[str, Mapping[str, Mapping[str, list[float | None]]]]) -> str:
    """The rows, by family and how it is held, as Markdown."""
    lines = [
        [of_class(zoo.TWINS[family].config).title, held, *(_told(found[form]) for form in FORMS)]
        for family in FAMILIES
        if family in rows
        for held, found in rows[family].items()
    ]
    return "\n".join(markdown.table(("model", "held in", *FORMS), lines)) + "\n"


def _told(kept: Sequence[float | None]) -> str:
    return ", ".join(markdown.share(each, digits=0) for each in kept)


def table(families: list[str], steps: int) -> None:
    rows = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for family in families:
        rows[family] = {held: kept_by(family, steps, held) for held in HELD}
        write_text(RESULTS, json.dumps(rows, indent=1) + "\n")
        write_text(TABLE, as_table(rows))
    print(as_table(rows))


def real(size: str, form: str) -> dict[str, float]:
    """Seconds and memory of an extraction from a checkpoint of a real size."""
    base = Loaded(models.build(size), models.text_encoder(size))
    generator = torch.Generator().manual_seed(2)
    with tempfile.TemporaryDirectory() as folder:
        source, safe = Path(folder, "safe.safetensors"), {}
        for key in sorted(base.network):
            safe[f"model.{key}"] = value = base.w0(key).half()
            if "attn" in key and value.ndim > 1:
                left = torch.randn(len(value), 16, generator=generator)
                right = torch.randn(16, value[0].numel(), generator=generator)
                safe[f"model.{key}"] = value + (0.001 * left @ right).reshape(value.shape).half()
        save_file(safe, source)
        file = source.stat().st_size / 2**20
        safe.clear()
        nothing = {"prompts": [], "retained": None, "effect": None, "reason": "-"}
        room.in_function = lambda *_: nothing
        room.roles_of = lambda _: {}
        output = Path(folder, "out.safetensors")
        with harness.Peak() as peak:
            took = harness.seconds(
                lambda: room.extract(base, source, output, Extraction(form), Sealing("nudity"))
            )
        return {"seconds": took, "mb": peak.mb, "file": file, "out": output.stat().st_size / 2**20}


FLAGS = {
    "families": harness.several(FAMILIES, choices=FAMILIES),
    "steps": 60,
    "real": {"choices": list(models.SIZES)},
}


def main(options) -> None:
    if not options.real:
        table(options.families, options.steps)
        return
    harness.head("model", "form", "seconds", "memory, MB", "safe model, MB", "safety LoRA, MB")
    for form in ("rank", "share", "full"):
        found = real(options.real, form)
        harness.row(options.real, form, *(f"{each:.0f}" for each in found.values()))
