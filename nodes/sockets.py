"""The pack's sockets, lists of modules so that loaders chain; pictures to and from ComfyUI."""

import uuid
from pathlib import Path

import folder_paths
import numpy as np
import torch
from comfy_api.latest import io, ui
from PIL import Image

CATEGORY = "safety/modular LoRA"

SafetyLora = io.Custom("MSL_SAFETY_LORA")  # list[LoraFile]
TaskLora = io.Custom("MSL_TASK_LORA")  # list[Task]


def summary_output() -> io.String.Output:
    """The report for people, of a node that reports."""
    return io.String.Output(
        display_name="summary", tooltip="The report in words, as Markdown: verdict, table, advice."
    )


def digests(**named: str | None) -> dict[str, list]:
    """What a node shows of digests (`web/digests.js`): a button that copies it for each.

    Their names are `seal`, `file` and `base`; one that is not known has no button.
    """
    return {"digests": [[name, digest] for name, digest in named.items() if digest]}


def as_image(picture: Image.Image) -> torch.Tensor:
    """A picture as ComfyUI's IMAGE (1, H, W, 3), float 0..1."""
    return torch.from_numpy(np.divide(picture.convert("RGB"), 255.0, dtype=np.float32))[None]


def preview(picture: Image.Image) -> ui.SavedImages:
    """A picture to show on a node, a JPEG in ComfyUI's temp folder: a tenth of a PNG's time."""
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    file = f"{uuid.uuid4().hex}.jpg"
    picture.save(folder / file, quality=90)
    return ui.SavedImages([ui.SavedResult(file, "", io.FolderType.temp)])
