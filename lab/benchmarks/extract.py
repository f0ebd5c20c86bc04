"""What an extraction keeps of a safe model, by form; and what one of a real size costs.

    .venv/bin/python -m modular_safety_lora.lab.benchmarks extract [--families SD15 Flux] \\
        [--steps 60]
    .venv/bin/python -m modular_safety_lora.lab.benchmarks extract --real sd15

The safe models are made here: all weights of a small model of a family, fine-tuned in fp32 by the
objective of ESD. The base is held in bf16 and in fp8. `weights` is the share of the change's square
that is kept, `function` what is left of what the safe model changes of the prompts, in pictures of
64 pixels. With `--real` the weights are seeded ones of the real shapes, fp16, those of attention
changed; the seconds and the memory are of the extraction without the measurement in function.
"""

import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from ...extraction import extract as room
from ...extraction.extract import extract
from ...extraction.loaded import Loaded
from ...extraction.settings import Extraction
from ...function.inputs import Moments
from ...host.denoiser import Denoiser
from ...host.gradients import kept
from ...host.lending import lent
from ...host.prompts import encode_texts
from ...modules.sealing import Sealing
from .. import zoo
from . import harness, models

PROMPTS = ("nude person", "a naked woman")
RANKS = (4, 8, 16, 32, 64)
FAMILIES = ["SD15", "SDXL", "Flux", "ZImage"]
# the widths of the small checkpoint's text encoder
SIZES = {
    "SD15": {"context_dim": 768},
    "SDXL": {"context_dim": 768, "adm_in_channels": 768 + 6 * 256},
    "Flux": {"context_in_dim": 768, "vec_in_dim": 768},
    "ZImage": {"cap_feat_dim": 768},
}


def fine_tuned(model, clip, steps: int, rate: float = 1e-4):
    """All weights of a MODEL held in fp32, tuned by ESD's objective (eta 1) on noise; by name."""
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
        trained = [each.requires_grad_() for each in network.parameters()]
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


def table(families: list[str], steps: int) -> None:
    clip = models.small()[1]
    harness.head("model", "base held in", "form", "weights", "function", "MB")
    forms = [Extraction(form="rank", rank=each) for each in RANKS]
    forms += [Extraction(), Extraction(form="full")]
    for family in families:
        whole = zoo.build(family, sizes=SIZES[family])
        safe = fine_tuned(whole, clip, steps)
        for held in (torch.bfloat16, torch.float8_e4m3fn):
            with tempfile.TemporaryDirectory() as folder:
                source = Path(folder, "safe.safetensors")
                save_file({f"model.{key}": value for key, value in safe.items()}, source)
                base = Loaded(zoo.build(family, held, sizes=SIZES[family]), clip)
                for number, how in enumerate(forms):
                    output = Path(folder, f"{number}.safetensors")
                    sealing, small = Sealing("nudity", prompts=PROMPTS), Moments(resolution=64)
                    made = extract(base, source, output, how, sealing, moments=small)
                    told = {"rank": f"rank {how.rank}", "share": f"share {how.keep}"}
                    harness.row(
                        family,
                        str(held).removeprefix("torch."),
                        told.get(how.form, how.form),
                        f"{made.report['kept']:.3f}",
                        _told(made.report["function"]["retained"]),
                        f"{output.stat().st_size / 2**20:.1f}",
                    )


def _told(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


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
