"""What the two training nodes share: inputs, the file they write, progress and previews on the node, and results."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io, ui
from PIL import Image
from server import PromptServer

from ..host.prompts import encode_texts, lines_of
from ..training.engine.adapters import AdapterSettings
from ..training.engine.checkpoint import Progress
from ..training.engine.clock import Clock
from ..training.engine.loop import Cancelled
from ..training.engine.previews import Previews
from ..training.engine.run import Job, Result
from ..training.settings import OPTIMIZERS, PRECISIONS, SCHEDULES, SHARED
from .audits import preset_names, rules_of
from .load import output_path
from .sockets import as_image

logger = logging.getLogger(__name__)
TEXTS_EVERY = 0.5  # seconds between two lines of progress on the node


def run_inputs(steps: int) -> list[io.Input]:
    """The settings of a run that every user looks at."""
    return [
        io.String.Input(
            "save_as", default="", tooltip="Name of the file, below the first loras folder. An existing file is kept."
        ),
        io.Int.Input("steps", default=steps, min=1, max=1_000_000, tooltip="Optimizer steps."),
        io.Float.Input(
            "learning_rate",
            default=1e-4,
            min=1e-8,
            max=10.0,
            step=1e-6,
            round=1e-8,
            tooltip="Size of a step. 1e-4 suits AdamW; Prodigy finds the size itself and wants 1.0.",
        ),
        io.Int.Input(
            "rank", default=4, min=1, max=1024, tooltip="Rank of the LoRA: how much it can learn. 4 is the paper's."
        ),
        io.Int.Input("batch_size", default=1, min=1, max=4096, tooltip="Pictures in a batch."),
        io.Int.Input(
            "seed", default=0, min=0, max=2**63 - 1, control_after_generate=False, tooltip="Seed of everything random."
        ),
    ]


def more_inputs() -> list[io.Input]:
    """The settings of a run that have a good default."""
    more = {"optional": True, "advanced": True}
    return [
        io.Vae.Input("vae", optional=True, tooltip="Makes the preview pictures visible. Needs preview_prompts."),
        io.String.Input(
            "preview_prompts",
            multiline=True,
            default="",
            optional=True,
            tooltip="A picture for each line is made every preview_every steps with the merged model, from fixed seeds, and "
            "audited. The chart shows how often the audit flags them beside the loss. Needs clip and vae.",
        ),
        io.Int.Input("preview_every", default=100, min=1, max=1_000_000, tooltip="Steps between previews.", **more),
        io.Int.Input("preview_size", default=512, min=64, max=4096, step=64, tooltip="Side of a preview, pixels.", **more),
        io.Combo.Input(
            "preview_preset", options=preset_names(), default="strict", tooltip="Rules of the previews' audit.", **more
        ),
        io.Float.Input("alpha", default=0.0, min=0.0, max=1024.0, tooltip="Alpha of the LoRA; 0 is the rank.", **more),
        io.Combo.Input(
            "optimizer",
            options=list(OPTIMIZERS),
            default="adamw",
            tooltip="How steps are taken. adamw8bit needs the package bitsandbytes, prodigy needs prodigyopt.",
            **more,
        ),
        io.Float.Input("weight_decay", default=0.01, min=0.0, max=1.0, step=0.001, tooltip="Weight decay.", **more),
        io.Combo.Input("schedule", options=list(SCHEDULES), tooltip="Of the learning rate, after the warm-up.", **more),
        io.Int.Input("warmup", default=0, min=0, max=1_000_000, tooltip="Steps of linear warm-up.", **more),
        io.Float.Input("clip_norm", default=1.0, min=0.0, max=1000.0, tooltip="Largest gradient norm; 0 for any.", **more),
        io.Int.Input("accumulate", default=1, min=1, max=4096, tooltip="Batches in a step.", **more),
        io.Combo.Input(
            "precision",
            options=list(PRECISIONS),
            tooltip="Of the network's arithmetic; auto is bf16 on GPUs that have it, fp32 on the CPU. The LoRA is fp32.",
            **more,
        ),
        io.Boolean.Input(
            "gradient_checkpointing", default=False, tooltip="Needs far less memory, takes about a third longer.", **more
        ),
        io.Int.Input(
            "save_every",
            default=100,
            min=0,
            max=1_000_000,
            tooltip="Steps between checkpoints to resume from; 0: none.",
            **more,
        ),
        io.Boolean.Input(
            "resume",
            default=True,
            tooltip="Go on from the checkpoint of a run of this name that was cancelled or failed, as if it had not been. "
            "Its data and settings must be the same.",
            **more,
        ),
    ]


def settings_of(values: dict) -> dict:
    """The values of `Settings` that both nodes take, without the adapter's."""
    return {name: values[name] for name in SHARED if name in values}


def adapter_of(values: dict, **more) -> AdapterSettings:
    return AdapterSettings(values["rank"], values.get("alpha") or float(values["rank"]), **more)


def job_of(values: dict, clip, node_id: str) -> Job:
    """The run that the inputs ask for, shown on the node."""
    output = output_path(values["save_as"])
    prompts, vae, previews = lines_of(values.get("preview_prompts") or ""), values.get("vae"), None
    if prompts:
        if clip is None or vae is None:
            raise ValueError("Previews need clip and vae; connect them, or clear preview_prompts.")
        folder = Path(folder_paths.get_output_directory(), "training", output.stem)
        size, rules = values.get("preview_size", 512), rules_of(values.get("preview_preset", "strict"))
        every = values.get("preview_every", 100)
        texts = encode_texts(clip, prompts)
        previews = Previews(prompts, texts, vae, folder, every, size, seed=values["seed"], rules=rules)
    shown = OnNode(values["steps"], node_id)
    saving = {"save_every": values.get("save_every", 100), "resume": values.get("resume", True)}
    return Job(output, on_step=shown, previews=previews, on_preview=shown.picture, **saving)


class OnNode:
    """Progress bar, a line of text and the newest previews on the node; Cancel ends the run and keeps what it learned."""

    def __init__(self, steps: int, node_id: str):
        self.steps, self.node_id = steps, node_id
        self.bar, self.clock = comfy.utils.ProgressBar(steps), Clock(steps)
        self.newest, self.told = None, 0.0

    def picture(self, row: Image.Image) -> None:
        self.newest = ("JPEG", row, 1024)

    def __call__(self, progress: Progress) -> bool:
        try:
            self.bar.update_absolute(progress.step, self.steps, self.newest)
        except comfy.model_management.InterruptProcessingException:  # the host's progress bar raises on Cancel
            return False
        self.newest = None
        line = self.clock.line(progress)
        if time.monotonic() - self.told > TEXTS_EVERY or progress.step == self.steps:
            self.told = time.monotonic()
            PromptServer.instance.send_progress_text(line, self.node_id)
        return not comfy.model_management.processing_interrupted()


def shown_result(train: Callable[[], Result]) -> tuple[Result, torch.Tensor, dict]:
    """Train; the result, its chart as an IMAGE (1, H, W, 3), and what the node draws.

    A cancelled run ends the prompt here, as ComfyUI expects of Cancel; its file is kept.
    """
    try:
        result = train()
    except Cancelled as error:
        raise comfy.model_management.InterruptProcessingException() from error
    if result.progress.cancelled:
        logger.info("cancelled: %s holds what %s steps trained", result.module.name, result.progress.step)
        raise comfy.model_management.InterruptProcessingException()
    plot = as_image(result.plot)
    return result, plot, ui.PreviewImage(plot).as_dict()
