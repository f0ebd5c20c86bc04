"""The node Measure Quality; evaluation/quality/measure.py does the work."""

import json
from pathlib import Path

import folder_paths
from comfy_api.latest import io, ui

from ..audit.folders.files import walk
from ..audit.report import as_text
from ..evaluation.quality.measure import NAME, MeasureJob, measure
from ..evaluation.quality.sources import REPORT
from ..evaluation.quality.spqr import Scale
from ..modules.paths import leads_out
from .inputs import Inputs, taken
from .progress import Meter
from .reading import by_user
from .sockets import CATEGORY, as_image, summary_output

OWN = (f"{NAME}.", "embeddings.sqlite")  # names of what a measure writes into a run's folder


class MeasureQuality(io.ComfyNode):
    """Do a run's pictures show what the prompts say, and how far are they from another run's?"""

    @classmethod
    def define_schema(cls) -> io.Schema:
        rows = Inputs(Scale)
        return io.Schema(
            node_id="MSL_MeasureQuality",
            display_name="Measure Quality",
            category=CATEGORY,
            description=(
                "What safety costs: whether pictures still show what the prompts say (CLIP score),"
                " and how far they are from the base's or from photographs (CMMD, change). Works on"
                " the runs that Audit Prompt Set keeps."
            ),
            search_aliases=["clip score", "cmmd", "fid", "lpips", "image quality", "spqr"],
            is_output_node=True,
            inputs=[
                io.ClipVision.Input(
                    "clip_vision", tooltip="A CLIP vision model, such as CLIP-ViT-L-14."
                ),
                io.Clip.Input(
                    "clip",
                    tooltip=(
                        "The text encoder of the same CLIP, straight from Load CLIP: clip_l for"
                        " CLIP-ViT-L-14."
                    ),
                ),
                io.String.Input(
                    "run",
                    default="safe",
                    tooltip=(
                        "A run of Audit Prompt Set that kept its pictures: its name, or its linked"
                        " report. Or a folder of pictures in ComfyUI's input folder."
                    ),
                ),
                io.String.Input(
                    "against",
                    default="base",
                    optional=True,
                    tooltip=(
                        "The base's run of the same prompts and seeds, or a folder of photographs."
                        " Empty: nothing is compared."
                    ),
                ),
                *[
                    io.String.Input(
                        name,
                        default="",
                        optional=True,
                        advanced=True,
                        tooltip=f"For the SPQR score: the safe model's harmful prompts{when}",
                    )
                    for name, when in (("harmful", "."), ("tuned", ", after benign tuning."))
                ],
                *rows.rest(),
            ],
            outputs=[
                io.String.Output(display_name="report", tooltip="All figures, as JSON."),
                summary_output(),
                io.Image.Output(
                    display_name="changed",
                    tooltip="The pairs that changed most; what is counted is blurred.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, run="", against="", harmful="", tuned="", **_) -> str:
        named = [_folder(each) for each in (run, against, harmful, tuned) if _is_name(each)]
        there = walk([each for each in named if each.is_dir()])
        return repr([each for each in there if _made(each[0])])

    @classmethod
    def validate_inputs(
        cls,
        run: str | None = None,
        against: str | None = None,
        harmful: str | None = None,
        tuned: str | None = None,
    ) -> bool | str:
        for name in (run, against, harmful, tuned):
            if _is_name(name) and leads_out(str(name).strip()):
                return f"{name!r} is not the name of a run or of a folder of pictures."
        return True

    @classmethod
    def execute(
        cls, clip_vision, clip, run: str, against="", harmful="", tuned="", **inputs
    ) -> io.NodeOutput:
        (scale,) = taken(inputs, Scale)
        if not run.strip():
            raise ValueError("run is empty: write the name of a run of Audit Prompt Set.")
        folder = _folder(run)
        others = [_folder(each) if each.strip() else None for each in (against, harmful, tuned)]
        meter = Meter("step")
        job = MeasureJob(
            folder, _results(folder), others[0], others[1], others[2], scale=scale, on_step=meter
        )
        with by_user():
            found = measure(clip_vision, clip, job)
        meter(meter.pace.total, picture=found.grid)  # the frontend keeps showing the last preview
        shown = as_image(found.grid)
        words = f"{found.words}\n\n- Page with pictures: {found.page}"
        told = {**ui.PreviewImage(shown, cls=cls).as_dict(), **ui.PreviewText(words).as_dict()}
        return io.NodeOutput(as_text(found.report), words, shown, ui=told)


def _is_name(text: str | None) -> bool:
    return bool(text and text.strip()) and not str(text).lstrip().startswith("{")


def _folder(text: str) -> Path:
    """The folder of a run, by its name or its report; or of pictures among the inputs."""
    name = text.strip()
    if not _is_name(text):
        try:
            name = json.loads(text)["about"]["run"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                "What is linked is not the report of Audit Prompt Set. Link that node's report, or"
                " write the run's name."
            ) from error
    if not isinstance(name, str) or not name or leads_out(name):
        raise ValueError(f"{name!r} is not the name of a run or of a folder of pictures.")
    audits = Path(folder_paths.get_output_directory(), "audits")
    own, given = audits / name, Path(folder_paths.get_input_directory(), name)
    return own if own.is_dir() or not given.is_dir() else given


def _results(folder: Path) -> Path:
    """Where the figures of a folder are written: into a run's own, beside the runs for another."""
    if (folder / REPORT).is_file():
        return folder
    return Path(folder_paths.get_output_directory(), "audits", NAME, folder.name)


def _made(path: str) -> bool:
    """Whether a file is not one that a measure wrote."""
    return not Path(path).name.startswith(OWN)
