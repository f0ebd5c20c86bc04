"""The node Audit Prompt Set; evaluation/run.py does the work."""

import json
from dataclasses import replace

from comfy_api.latest import io, ui
from PIL import Image

from ..audit.charts import summary_chart
from ..audit.words import in_words
from ..evaluation.run import run
from . import recording
from .audits import counting_inputs
from .inputs import Inputs
from .progress import Meter
from .prompt_sets import KINDS, PromptSetNode, job_of, prompts_input
from .reading import by_user
from .sockets import CATEGORY, as_image, summary_output


class AuditPromptSet(PromptSetNode):
    """Every prompt of a file through a model, with its own seed, audited as it comes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        rows = Inputs(*KINDS, without=("threshold", "classes"))
        return io.Schema(
            node_id="MSL_AuditPromptSet",
            display_name="Audit Prompt Set",
            category=CATEGORY,
            description=(
                "Make and audit a picture for each prompt of a CSV such as I2P, with its seed,"
                " guidance and size. Results are kept, pictures only if you ask; a stopped run"
                " continues where it was."
            ),
            search_aliases=[
                "i2p",
                "benchmark",
                "prompt list",
                "batch prompts",
                "concept erasure evaluation",
            ],
            is_output_node=True,
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip=(
                        "The model to audit: the base, or the model that comes out of Modular"
                        " Merge."
                    ),
                ),
                io.Clip.Input("clip", tooltip="The text encoder."),
                io.Vae.Input("vae", tooltip="Decodes the pictures."),
                prompts_input(
                    "A .csv with I2P's columns, a .txt with one prompt per line, or a"
                    " protocol's file, in ComfyUI's input folder."
                ),
                io.String.Input(
                    "name",
                    default="base",
                    tooltip=(
                        "Folder of the results, below output/audits. The same name continues a"
                        " stopped run."
                    ),
                ),
                *counting_inputs(rows, "preset"),
                *rows.shown("steps", "cfg", "sampler_name", "scheduler"),
                *rows.shown("first_seed", advanced=True),
                *rows.shown("width", "height", "limit"),
                *rows.shown("keep", advanced=True),
                *rows.aside("category", "where"),
                *counting_inputs(rows, "second_opinion", optional=True, advanced=True),
                *rows.aside("min_size", "pictures_per_prompt", "protocol"),
                *rows.rest(),
            ],
            outputs=[
                io.String.Output(
                    display_name="report", tooltip="Every row and the summary, as JSON."
                ),
                io.Image.Output(
                    display_name="chart", tooltip="Rates by category and class, and by threshold."
                ),
                io.Float.Output(
                    display_name="flagged_rate",
                    tooltip="The share of flagged pictures, 0 to 1.",
                ),
                summary_output(),
            ],
        )

    @classmethod
    def execute(cls, model, clip, vae, prompts: str, name: str, **inputs) -> io.NodeOutput:
        (job,) = job_of(prompts, name, inputs)
        rows, folder = job.prompts, job.folder
        meter = Meter("picture", len(rows))

        def show(done: int, picture: Image.Image | None) -> None:
            meter(done, picture=picture)

        with by_user():
            summary = run(model, clip, vae, replace(job, on_picture=show))
        beside = {"prompts_file": rows.file, "lock_findings": summary["lock_findings"]}
        recording.audited(summary, "Audit Prompt Set", f"keep {job.keep}", beside)
        if not summary["images"]:
            raise ValueError(
                f"{summary['verdict'].capitalize()}, so {name!r} has no result. The reasons are in"
                f" {folder / 'report.html'}."
            )
        drawn = summary_chart(summary, f"{name}: {rows.file}")
        show(len(rows), drawn)  # the frontend keeps showing the last preview
        chart = as_image(drawn)
        report = (folder / "report.json").read_text(encoding="utf-8")
        missing = [f"**{summary['not_made']}**"] if summary["not_made"] else []
        beside = [*missing, *summary["lock_findings"]]
        words = in_words(summary, beside=beside, about=json.loads(report)["about"])
        words += f"\n- Page with every picture: {folder / 'report.html'}"
        shown = {**ui.PreviewImage(chart, cls=cls).as_dict(), **ui.PreviewText(words).as_dict()}
        return io.NodeOutput(report, chart, summary["flagged_rate"], words, ui=shown)
