"""The rows of `python dev.py gpu`, each a function that gives its figures or raises."""

import math
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import comfy.sd
import numpy
import torch
from skimage import data as photographs

from ...audit.detectors.registry import find
from ...host.denoiser import Denoiser
from ...host.weights import loaded_weight
from ...merge.merge import merge
from ...modules.errors import SafetyError
from ...training.adapter_settings import AdapterSettings
from ...training.data import Dataset
from ...training.engine.job import TrainingJob
from ...training.objectives import Erasure
from ...training.safety import train_safety
from ...training.settings import Settings
from ...training.targets import target_layers
from ...training.task import train_task
from .. import assets, shipped, zoo
from ..benchmarks import harness
from ..benchmarks.training import a_step
from ..benchmarks.training_world import SD15, World
from ..server import Server, place_models
from ..zoo.quantised import quantised
from ..zoo.retained_weights import kept, module_for
from . import dynamic_patcher

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
    if held == "fp8":
        model = quantised(family, "float8_e4m3fn", torch.bfloat16)
    else:
        dtype = getattr(torch, held)
        cast = torch.bfloat16 if dtype.itemsize == 1 else None
        model = zoo.build(family, dtype, cast=cast)
    model.load_device = device
    return model


def _parts(family: str):
    one, two = zoo.conditionings(family, 2)
    return {"nude": one, "": two}, Dataset(zoo.latents(family, 2), [one, two], [[0, 1]], "x")


def _settings(steps: int):
    return Settings(steps=steps, adapter=AdapterSettings(4, 4.0), learning_rate=1e-3)


def _train_task(device, family: str, held: str, steps: int) -> dict:
    texts, dataset = _parts(family)
    run = partial(train_task, _model(device, family, held), dataset, texts, _settings(steps))
    return _trained(device, run, steps)


def _train_safety(device, family: str, held: str, steps: int) -> dict:
    texts, _ = _parts(family)
    run = partial(train_safety, _model(device, family, held), texts, ["nude"], _settings(steps))
    more = {"erasure": Erasure(sampling_steps=5), "resolution": 64}
    return _trained(device, partial(run, **more), steps)


def _trained(device, run: Callable, steps: int) -> dict:
    """Train; milliseconds of a step behind the first, peak memory, and the last loss."""
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
    return harness.alone(dynamic_patcher.kept, held, device.type == "cpu", comfyui=False)


def _arm(device, arm: str, steps: int) -> dict:
    """A step of a trainer on the small checkpoint, in bf16."""
    with torch.inference_mode():
        world = World(SD15, precision="bf16")
        world.train(arm, 2)
        with _Peak(device) as peak:
            took = a_step(world, arm, steps)
    return {"ms a step": round(1e3 * took, 1), "peak MB": peak.mb}


def _workflow(device) -> dict:
    """The shipped workflow on a server with ComfyUI's own defaults."""
    with tempfile.TemporaryDirectory() as folder:
        place_models(assets.shared_models(), Path(folder))
        with Server(Path(folder), ("--cpu",) if device.type == "cpu" else ()) as server:
            return shipped.merged(server, side=64 if device.type == "cpu" else 512)


def _detector(device) -> dict:
    pictures = [numpy.roll(photographs.astronaut(), 7 * number, axis=1) for number in range(64)]
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
        self.process = harness.Peak().__enter__()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        return self

    def __exit__(self, *error) -> None:
        self.process.__exit__(*error)
        self.mb = round(self.process.mb)
        if self.device.type == "cuda":
            self.mb = round((torch.cuda.max_memory_allocated() - self.before) / 2**20)
