"""The rows of `python dev.py gpu`, each a function that gives its figures or raises."""

import asyncio
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

STREAMED = ("nvfp4", "float8_e4m3fn", "scaled_fp8", "mxfp8", "int8_tensorwise")
HELD = ("float16", "bfloat16", "float8_e4m3fn", "fp8")  # the last one quantised


def rows_on(device, steps: int) -> list[tuple[str, str, Callable[[], dict]]]:
    """(title, what of, work) of each row; the work gives its figures, or raises."""
    from ..zoo import UNLIKE

    rows = []
    for family in UNLIKE:
        for held in HELD:
            what = f"{family}, held in {held}"
            for title, work in (
                ("Train task LoRA", _train_task),
                ("Train safety LoRA", _train_safety),
                ("Merge and lock", _merge),
            ):
                rows.append((title, what, partial(work, device, family, held, steps)))
    for held in STREAMED:
        rows.append(("Merge, dynamic patcher", f"Flux, {held}", partial(_dynamic, device, held)))
    for arm in ("ours, same layers", "stock, bypass"):
        rows.append(("Trainers, bf16", arm, partial(_arm, device, arm, steps)))
    rows.append(("Live server", "the shipped workflow", partial(_workflow, device)))
    rows.append(("Detector", "CUDA against the CPU", partial(_detector, device)))
    return rows


def _model(device, family: str, held: str):
    """A small model of a family, on the device, computing as the host chooses."""
    import torch

    from .. import zoo
    from ..zoo.quantised import quantised

    if held == "fp8":
        model = quantised(family, "float8_e4m3fn", torch.bfloat16)
    else:
        dtype = getattr(torch, held)
        cast = torch.bfloat16 if dtype.itemsize == 1 else None
        model = zoo.build(family, dtype, cast=cast)
    model.load_device = device
    return model


def _parts(family: str):
    from ...training import data
    from .. import zoo

    one, two = zoo.conditionings(family, 2)
    return {"nude": one, "": two}, data.Dataset(zoo.latents(family, 2), [one, two], [[0, 1]], "x")


def _settings(steps: int):
    from ...training.engine.adapters import AdapterSettings
    from ...training.settings import Settings

    return Settings(steps=steps, adapter=AdapterSettings(4, 4.0), learning_rate=1e-3)


def _train_task(device, family: str, held: str, steps: int) -> dict:
    from ...training.task import train_task

    texts, dataset = _parts(family)
    run = partial(train_task, _model(device, family, held), dataset, texts, _settings(steps))
    return _trained(device, run, steps)


def _train_safety(device, family: str, held: str, steps: int) -> dict:
    from ...training.safety import train_safety
    from ...training.settings import Erasure

    texts, _ = _parts(family)
    run = partial(train_safety, _model(device, family, held), texts, ["nude"], _settings(steps))
    more = {"erasure": Erasure(sampling_steps=5), "resolution": 64}
    return _trained(device, partial(run, **more), steps)


def _trained(device, run: Callable, steps: int) -> dict:
    """Train; milliseconds of a step behind the first, peak memory, and the last loss."""
    import torch

    from ...training.engine.run import TrainingJob

    marks = []
    with tempfile.TemporaryDirectory() as folder, _Peak(device) as peak:
        job = TrainingJob(
            Path(folder, "x.safetensors"),
            on_step=lambda progress: marks.append(time.perf_counter()) or True,
        )
        result = run(job)
    losses = [sum(each.values()) for each in result.progress.losses]
    tensors = result.module.tensors.values()
    assert all(map(math.isfinite, losses)) and len(losses) == steps
    assert all(each.dtype == torch.float32 and each.isfinite().all() for each in tensors)
    step = (marks[-1] - marks[0]) / max(1, len(marks) - 1)
    return {
        "ms a step": round(1e3 * step, 1),
        "peak MB": peak.mb,
        "last loss": round(losses[-1], 4),
    }


def _merge(device, family: str, held: str, steps: int) -> dict:
    """What is left of a safety change in the weights that compute, and that the lock holds."""
    import comfy.sd

    from ...host.denoiser import Denoiser
    from ...host.weights import loaded_weight
    from ...merge.merge import merge
    from ...modules.errors import SafetyError
    from ...training.targets import target_layers
    from .. import zoo
    from ..zoo.weighing import kept, module_for

    model = _model(device, family, held)
    roles = Denoiser(model).roles(zoo.conditionings(family, 1)[0])
    module, changes = module_for(model, target_layers(model.model.diffusion_model, roles))
    before = {key: loaded_weight(model, key).cpu() for key in changes}
    merged = merge(model, [module]).model
    found = {name: round(rho, 4) for name, rho in kept(merged, before, changes).items()}
    assert min(found.values()) > 0.99, f"{found} of the safety change is left"
    assert zoo.sampled(merged, family).isfinite().all()
    later = comfy.sd.load_lora_for_models(merged, None, dict(module.tensors), -1.0, 0.0)[0]
    try:
        zoo.sampled(later, family)
    except SafetyError:
        return found
    raise AssertionError("a LoRA that takes the safety module off later was not stopped")


def _dynamic(device, held: str) -> dict:
    """What the dynamic patcher keeps of a safety change, in a process that begins with it."""
    module = f"{__package__}.dynamic"
    command = [sys.executable, "-m", module, held, *(["cpu"] if device.type == "cpu" else [])]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return json.loads(done.stdout.splitlines()[-1])


def _arm(device, arm: str, steps: int) -> dict:
    """A step of a trainer on the small checkpoint, in bf16."""
    import torch

    from ..benchmarks.training_world import SD15, World

    spans = []
    with torch.inference_mode():
        world = World(SD15, precision="bf16")
        world.train(arm, 2)
        with _Peak(device) as peak:
            for length in (2, 2 + steps):
                start = time.perf_counter()
                world.train(arm, length)
                spans.append(time.perf_counter() - start)
    return {"ms a step": round(1e3 * (spans[1] - spans[0]) / steps, 1), "peak MB": peak.mb}


def _workflow(device) -> dict:
    """The shipped workflow on a server with ComfyUI's own defaults."""
    from .. import assets
    from ..server import Server, place_models

    with tempfile.TemporaryDirectory() as folder:
        place_models(assets.shared_models(), Path(folder))
        with Server(Path(folder), ("--cpu",) if device.type == "cpu" else ()) as server:
            return shipped_workflow(server, side=64 if device.type == "cpu" else 512)


def shipped_workflow(server, **size: int) -> dict:
    """What a live server's merge retains of the safety LoRA, and how it holds the model."""
    from .. import shipped

    prompt = shipped.prompt("Modular merge and audit", **size)
    merge = next(at for at, each in prompt.items() if each["class_type"] == "MSL_ModularMerge")
    prompt["report"] = {"class_type": "PreviewAny", "inputs": {"source": [merge, 2]}}
    outcome = asyncio.run(server.run(prompt))
    assert outcome.error is None, outcome.error
    merged = json.loads(outcome.outputs["report"]["text"][0])
    dynamic = "DynamicVRAM support detected and enabled" in server.log.read_text(errors="replace")
    return {"retained safety": merged["retained_safety"], "dynamic patcher": dynamic}


def _detector(device) -> dict:
    import numpy
    from skimage import data

    from ...audit.detectors.registry import find

    pictures = [numpy.roll(data.astronaut(), 7 * number, axis=1) for number in range(64)]
    found = {}
    for provider in ("cpu", "auto"):
        detector = find(provider=provider)
        detector.detect(pictures[:2])
        start = time.perf_counter()
        found[provider] = detector.detect(pictures)
        seconds = time.perf_counter() - start
    apart = max(
        (
            abs(one["score"] - other["score"])
            for ours, theirs in zip(found["auto"], found["cpu"], strict=True)
            for one, other in zip(ours, theirs, strict=True)
        ),
        default=math.nan,
    )
    assert device.type == "cpu" or detector.provider == "CUDAExecutionProvider", detector.provider
    rate = round(len(pictures) / seconds)
    return {"provider": detector.provider, "pictures a second": rate, "scores apart": float(apart)}


class _Peak:
    """The most memory that a block takes above what it found: of the card, or of the process."""

    def __init__(self, device):
        self.device = device

    def __enter__(self) -> "_Peak":
        import torch

        from ..benchmarks.merge import Peak

        self.process = Peak().__enter__()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        return self

    def __exit__(self, *error) -> None:
        import torch

        self.process.__exit__(*error)
        taken = self.process.most - self.process.before
        if self.device.type == "cuda":
            taken = torch.cuda.max_memory_allocated() - self.before
        self.mb = round(taken / 2**20)
