"""What the two training nodes share: inputs, the file they write, progress, previews, results."""

import contextlib
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
from ..options.table import Option, rows, values_of
from ..training.engine.checkpoint import Progress
from ..training.engine.clock import Clock
from ..training.engine.loop import Cancelled
from ..training.engine.previews import Previews
from ..training.engine.run import Result, TrainingJob
from ..training.engine.starting import starting
from ..training.keeping import Keeping
from ..training.settings import KINDS, Settings
from ..training.words import in_words
from .audits import preset_names, rules_of
from .load import output_path
from .sockets import as_image

logger = logging.getLogger(__name__)
TEXTS_EVERY = 0.5  # seconds between two lines of progress on the node


MORE = (  # of both nodes, in the order of their widgets
    *(
        "alpha",
        "optimizer",
        "weight_decay",
        "schedule",
        "warmup",
        "clip_norm",
        "accumulate",
        "precision",
    ),
    *("gradient_checkpointing", "save_every", "resume"),
)


class Rows:
    """The inputs of a training node from the table of options; `rest` has those nobody named."""

    def __init__(self, trainer: str):
        self.left = rows(*KINDS, of=trainer)

    def __call__(self, *names: str, **more) -> list[io.Input]:
        """Inputs that have a good default, out of the way."""
        return [
            input_of(self.left.pop(name), optional=True, advanced=True, **more) for name in names
        ]

    def shown(self, *names: str, **more) -> list[io.Input]:
        """Inputs that every user looks at."""
        return [input_of(self.left.pop(name), **more) for name in names]

    def run(self) -> list[io.Input]:
        """The file's name and the options that both nodes show first."""
        save_as = io.String.Input(
            "save_as",
            default="",
            tooltip="Name of the file, below the first loras folder. An existing file is kept.",
        )
        return [
            save_as,
            *self.shown("steps", "learning_rate", "rank"),
            *self.shown("batch_size", "seed", advanced=True),
        ]

    def more(self) -> list[io.Input]:
        """Previews, and the settings of both trainers that have a good default."""
        return [
            io.Vae.Input(
                "vae",
                optional=True,
                tooltip="Decodes the previews. Needs preview_prompts.",
            ),
            io.String.Input(
                "preview_prompts",
                multiline=True,
                default="",
                optional=True,
                tooltip=(
                    "A picture for each line is made every preview_every steps with the merged"
                    " model, from fixed seeds, and audited. The chart shows how often the audit"
                    " flags them beside the loss. Needs clip and vae."
                ),
            ),
            *self("preview_every", "preview_size"),
            io.Combo.Input(
                "preview_preset",
                options=preset_names(),
                default="strict",
                tooltip="Rules of the previews' audit.",
                optional=True,
                advanced=True,
            ),
            *self(*MORE),
        ]

    def rest(self) -> list[io.Input]:
        return self(*list(self.left))


def input_of(row: Option, **more) -> io.Input:
    """A row of the table as a node's input."""
    told = {"default": row.default, "tooltip": row.words, **more}
    if row.choices:
        return io.Combo.Input(row.name, options=list(row.choices), **told)
    if isinstance(row.default, bool):
        return io.Boolean.Input(row.name, **told)
    ends = {"min": row.low, "max": row.high, **({"step": row.step} if row.step else {})}
    if isinstance(row.default, int):
        # the frontend would draw a new one
        fixed = {"control_after_generate": False} if row.name == "seed" else {}
        return io.Int.Input(row.name, **ends, **fixed, **told)
    return io.Float.Input(
        row.name, **ends, **({"round": row.step / 100} if row.step else {}), **told
    )


def held_for(values: dict, settings: Settings) -> contextlib.AbstractContextManager:
    """A block that may write the file that `save_as` names; what can't be is said before it."""
    resume = Keeping(**values_of(Keeping, values)).resume
    parts = values.get("clip"), values.get("vae")
    if lines_of(values.get("preview_prompts") or "") and None in parts:
        raise ValueError("Previews need clip and vae; connect them, or clear preview_prompts.")
    return starting(output_path(values["save_as"]), settings, resume=resume)


def job_of(values: dict, clip, node_id: str) -> TrainingJob:
    """The run that the inputs ask for, shown on the node."""
    output, keeping = output_path(values["save_as"]), Keeping(**values_of(Keeping, values))
    prompts, vae, previews = lines_of(values.get("preview_prompts") or ""), values.get("vae"), None
    if prompts:
        folder = Path(folder_paths.get_output_directory(), "training", output.stem)
        rules, texts = rules_of(values.get("preview_preset", "strict")), encode_texts(clip, prompts)
        how = {**keeping.looks, "seed": values["seed"], "rules": rules}
        previews = Previews(prompts, texts, vae, folder, **how)
    shown = OnNode(values["steps"], node_id)
    saving = {"save_every": keeping.save_every, "resume": keeping.resume}
    return TrainingJob(output, on_step=shown, previews=previews, on_preview=shown.picture, **saving)


class OnNode:
    """Progress bar, a line of text and the newest previews on the node.

    Cancel ends the run and keeps what it learned.
    """

    def __init__(self, steps: int, node_id: str):
        self.steps, self.node_id = steps, node_id
        self.bar, self.clock = comfy.utils.ProgressBar(steps), Clock(steps)
        self.newest, self.told = None, 0.0

    def picture(self, row: Image.Image) -> None:
        self.newest = ("JPEG", row, 1024)

    def __call__(self, progress: Progress) -> bool:
        try:
            self.bar.update_absolute(progress.step, self.steps, self.newest)
        except comfy.model_management.InterruptProcessingException:
            return False  # the host's progress bar raises on Cancel
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
        logger.info(
            "cancelled: %s holds what %s steps trained", result.module.name, result.progress.step
        )
        raise comfy.model_management.InterruptProcessingException()
    plot = as_image(result.plot)
    words = ui.PreviewText(in_words(result.report)).as_dict()
    return result, plot, {**ui.PreviewImage(plot).as_dict(), **words}
