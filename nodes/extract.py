"""The node Extract Safety LoRA; extraction/extract.py does the work."""

from collections.abc import Iterator
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths
from comfy_api.latest import io, ui

from ..audit.report import as_text
from ..extraction.extract import extract
from ..extraction.loaded import Loaded
from ..extraction.report import in_words
from ..extraction.settings import Extraction
from ..modules.sealing import Sealing
from .inputs import Inputs, taken
from .load import output_path
from .sockets import CATEGORY, SafetyLora, summary_output

FILES = ("checkpoints", "diffusion_models", "text_encoders", "loras")
FOLDERS = "diffusers"
SIGNS = ("model_index.json", "config.json")  # of a folder that diffusers or transformers saved


def sources() -> list[str]:
    """The files and folders that may be a safe model, each with the kind of folder it lies in."""
    files = [f"{kind}/{name}" for kind in FILES for name in folder_paths.get_filename_list(kind)]
    return [*files, *(f"{FOLDERS}/{name}" for name in _folders())]


def _folders() -> Iterator[str]:
    for place in map(Path, folder_paths.get_folder_paths(FOLDERS)):
        found = {sign.parent for name in SIGNS for sign in place.rglob(name)} - {place}
        yield from sorted(each.relative_to(place).as_posix() for each in found)


def source_path(source: str) -> Path:
    """The file or folder that a choice means. Raises ValueError for one that is not there."""
    if source not in sources():
        raise ValueError(
            f"{source}: there is no such file in the models folders. Refresh the node definitions"
            " (R), and choose again."
        )
    kind, _, name = source.partition("/")
    places = [Path(place, name) for place in folder_paths.get_folder_paths(kind)]
    return next(each for each in places if each.exists())


class ExtractSafetyLora(io.ComfyNode):
    """How a published safe model differs from its base becomes a sealed safety LoRA."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        rows = Inputs(Sealing, Extraction)
        return io.Schema(
            node_id="MSL_ExtractSafetyLora",
            display_name="Extract Safety LoRA",
            category=CATEGORY,
            description=(
                "Turn a safe model that somebody published (ESD, UCE, MACE, SPM, AdvUnlearn, any"
                " safe checkpoint) into a sealed safety LoRA: how it differs from its base."
            ),
            search_aliases=["extract lora", "esd", "uce", "spm", "mace", "concept erasure"],
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="The base that the safe model was made from."),
                io.Clip.Input("clip", tooltip="Its text encoder."),
                io.Combo.Input(
                    "source",
                    options=sources(),
                    tooltip="The safe model: a file in a models folder, or a folder of diffusers.",
                ),
                *rows.shown("concept"),
                io.String.Input(
                    "save_as", default="", tooltip="Name of the file, below the first loras folder."
                ),
                *rows.shown("form", "keep", "rank"),
                *rows.shown("prompts", optional=True),
                *rows.aside("held_out", "strength", "file_precision"),
                *rows.rest(),
            ],
            outputs=[
                SafetyLora.Output(
                    display_name="safety", tooltip="The sealed LoRA, for Modular Merge."
                ),
                io.String.Output(
                    display_name="sha256", tooltip="Its seal, to pin in Load Safety LoRA (locked)."
                ),
                summary_output(),
                io.String.Output(display_name="report", tooltip="What it keeps, as JSON."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, source: str, **kwargs) -> str:
        try:
            found = source_path(source)
        except ValueError as error:
            return str(error)  # execute raises it
        parts = sorted(found.rglob("*")) if found.is_dir() else [found]
        return repr([(each.name, each.stat().st_size, each.stat().st_mtime_ns) for each in parts])

    @classmethod
    def execute(cls, model, clip, source: str, save_as: str, **inputs) -> io.NodeOutput:
        sealing, how = taken(inputs, Sealing, Extraction)
        output, bar = output_path(save_as), comfy.utils.ProgressBar(1)

        def progress(done: int, total: int) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            bar.update_absolute(done, total)

        base, path = Loaded(model, clip), source_path(source)
        made = extract(base, path, output, how, sealing, progress=progress)
        words, module = in_words(made.report), made.module
        return io.NodeOutput(
            [module], module.sha256, words, as_text(made.report), ui=ui.PreviewText(words)
        )
