"""What the two training nodes share: inputs, the file they write, progress, previews, results."""

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io, ui
from PIL import Image
from server import PromptServer

from ..training.engine.checkpoint import Progress
from ..training.engine.clock import Clock
from ..training.engine.job import Result, TrainingJob
from ..training.engine.loop import Cancelled
from ..training.engine.previews import previews_of
from ..training.engine.starting import starting
from ..training.keeping import Keeping
from ..training.settings import KINDS, Settings
from ..training.words import in_words
from .audits import counting_inputs, presets
from .inputs import Inputs, mistake
from .load import output_path
from .sockets import as_image

logger = logging.getLogger(__name__)
KEEPING = Keeping()
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
LATER = ("preview_steps", "preview_guidance")  # of both too, behind what is theirs alone


class Rows(Inputs):
    """The inputs of a training node: rows of all runs, and the `kinds` of one trainer."""

    def __init__(self, trainer: str, *kinds: type, without: tuple[str, ...] = ()):
        super().__init__(*KINDS, *kinds, of=trainer, without=without, finer=True)

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
        vae = io.Vae.Input(
            "vae", optional=True, tooltip="Decodes the previews. Needs preview_prompts."
        )
        return [
            vae,
            *self.shown("preview_prompts", optional=True),
            *self.aside("preview_every", "preview_size"),
            *counting_inputs(self, "preview_preset", optional=True, advanced=True),
            *self.aside(*MORE),
        ]


def name_mistake(save_as: str | list[str] | None) -> bool | str:
    """What of a file's name is known before anything is loaded; None is a link."""
    name = save_as[0] if isinstance(save_as, list) else save_as
    return name is None or mistake(lambda: output_path(name))


@dataclass(frozen=True)
class Started:
    """What a node asks for beside its settings, known before anything is loaded."""

    save_as: str
    keeping: Keeping = KEEPING
    clip: object = None
    vae: object = None

    def held(self, settings: Settings) -> contextlib.AbstractContextManager:
        """A block that may write the file that is named; what can't be is said before it."""
        if self.keeping.preview_prompts and None in (self.clip, self.vae):
            raise ValueError("Previews need clip and vae; connect them, or clear preview_prompts.")
        return starting(output_path(self.save_as), settings, resume=self.keeping.resume)

    def job(self, settings: Settings, node_id: str, warnings: Sequence[str] = ()) -> TrainingJob:
        """The run, shown on the node, with what is to be said of its pictures."""
        output, shown = output_path(self.save_as), OnNode(settings.steps, node_id, warnings)
        folder = Path(folder_paths.get_output_directory(), "training", output.stem)
        previews = None
        if self.keeping.preview_prompts:
            preset = self.keeping.preset(presets())
            parts = self.clip, self.vae
            previews = previews_of(self.keeping, preset, parts, folder, settings.seed)
        how = {"previews": previews, "on_preview": shown.picture}
        return TrainingJob(output, self.keeping.save_every, self.keeping.resume, shown, **how)


class OnNode:
    """Progress bar, a line of text and the newest previews on the node, and warnings under them.

    Cancel ends the run and keeps what it learned.
    """

    def __init__(self, steps: int, node_id: str, warnings: Sequence[str] = ()):
        self.steps, self.node_id, self.warnings = steps, node_id, warnings
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
        text = self.text(progress)
        if time.monotonic() - self.told > TEXTS_EVERY or progress.step == self.steps:
            self.told = time.monotonic()
            PromptServer.instance.send_progress_text(text, self.node_id)
        return not comfy.model_management.processing_interrupted()

    def text(self, progress: Progress) -> str:
        """What stands on the node: how far it is, and what is to be said of its pictures."""
        return "\n".join([self.clock.line(progress), *self.warnings])


def shown_result(train: Callable[[], Result]) -> tuple[Result, torch.Tensor, str, dict]:
    """Train; the result, its chart as an IMAGE (1, H, W, 3), its words, and what the node draws.

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
    plot, words = as_image(result.plot), in_words(result.report)
    shown = {**ui.PreviewImage(plot).as_dict(), **ui.PreviewText(words).as_dict()}
    return result, plot, words, shown
