"""The node Audit Prompt Set; evaluation/run.py does the work."""

import json
from dataclasses import replace
from pathlib import Path

import folder_paths
from comfy_api.latest import io, ui
from PIL import Image

from ..audit.charts import summary_chart
from ..audit.rules import NO_OPINION, Counting, Rules
from ..audit.words import in_words
from ..evaluation.job import AuditJob, Kept
from ..evaluation.prompt_set import Defaults, Selection, read_prompts
from ..evaluation.protocols import NONE, Following
from ..evaluation.run import run
from ..host.sampling_settings import Sampling
from ..modules.paths import leads_out
from ..options.choices import chosen
from . import recording
from .audits import audit_demands, check_counting, counting_inputs, known_presets, presets
from .inputs import Inputs, mistake, taken
from .made_by import loras_upstream
from .progress import Meter
from .settings import operator
from .sockets import CATEGORY, as_image, summary_output

KINDS = (Counting, Sampling, Defaults, Selection, Kept, Following)
READ = (".csv", ".txt", ".json")
SHIPPED = "example: "  # before the names of the pack's own sets


def prompt_files() -> dict[str, Path]:
    """Prompt sets by their name in the combo: the pack's examples, those in the input folder."""
    folder = Path(folder_paths.get_input_directory())
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in READ)
    examples = sorted(Path(__file__).parents[1].joinpath("evaluation", "examples").glob("*.csv"))
    own = {path.relative_to(folder).as_posix(): path for path in found}
    return {f"{SHIPPED}{path.stem}": path for path in examples} | own


class AuditPromptSet(io.ComfyNode):
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
                io.Combo.Input(
                    "prompts",
                    options=list(prompt_files()),
                    tooltip=(
                        "A .csv with I2P's columns, a .txt with one prompt per line, or a"
                        " protocol's file, in ComfyUI's input folder."
                    ),
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
    def fingerprint_inputs(cls, prompts: str = "", **_) -> str:
        file = prompt_files().get(prompts)
        changed = file.stat().st_mtime_ns if file else None
        return f"{changed} {audit_demands()}"

    @classmethod
    def validate_inputs(
        cls,
        prompts: str | None = None,
        preset: str | None = None,
        second_opinion: str | None = None,
        protocol: str | None = None,
    ) -> bool | str:
        if prompts is not None and prompts not in prompt_files():
            return f"{prompts!r} is not in ComfyUI's input folder. Put it there and press R."
        if preset is None:
            return known_presets(second_opinion)

        def check() -> None:
            following = Following(protocol or NONE)
            asked = following.filled({"preset": preset})[0]["preset"]
            following.check_preset(asked, presets())
            check_counting(asked, "", second_opinion or NO_OPINION)

        return mistake(check)

    @classmethod
    def execute(cls, model, clip, vae, prompts: str, name: str, **inputs) -> io.NodeOutput:
        settings, files = operator(), prompt_files()
        following = Following(inputs.get("protocol", NONE))
        values, changes = following.filled(inputs)
        counting, sampling, defaults, selection, kept, _ = taken(values, *KINDS)
        own, there = (settings.detectors, folder_paths.get_user_directory()), presets()
        following.check_preset(counting.preset, there)
        rules = Rules(*counting.among(there), *own, settings.audit_provider)
        file = files[chosen(prompts, files, "prompts")]
        rows = read_prompts(file, defaults, selection, following.shape)
        if not name.strip() or leads_out(name.strip()):
            raise ValueError(
                f"{name!r} can't be a folder name below output/audits; choose another."
            )
        folder = Path(folder_paths.get_output_directory(), "audits", name.strip())
        meter = Meter("picture", len(rows))

        def show(done: int, picture: Image.Image | None) -> None:
            meter(done, picture=picture)

        job = AuditJob(file.stem, rows, rules, sampling, folder, kept.keep, show)
        protocol = following.told(rows, values, changes)
        job = replace(job, name=name.strip(), loras=loras_upstream(), protocol=protocol)
        summary = run(model, clip, vae, job)
        beside = {"prompts_file": file.name, "lock_findings": summary["lock_findings"]}
        recording.audited(summary, "Audit Prompt Set", f"keep {kept.keep}", beside)
        if not summary["images"]:
            raise ValueError(
                f"{summary['verdict'].capitalize()}, so {name!r} has no result. The reasons are in"
                f" {folder / 'report.html'}."
            )
        drawn = summary_chart(summary, f"{name}: {file.name}")
        show(len(rows), drawn)  # the frontend keeps showing the last preview
        chart = as_image(drawn)
        report = (folder / "report.json").read_text(encoding="utf-8")
        missing = [f"**{summary['not_made']}**"] if summary["not_made"] else []
        beside = [*missing, *summary["lock_findings"]]
        words = in_words(summary, beside=beside, about=json.loads(report)["about"])
        words += f"\n- Page with every picture: {folder / 'report.html'}"
        shown = {**ui.PreviewImage(chart, cls=cls).as_dict(), **ui.PreviewText(words).as_dict()}
        return io.NodeOutput(report, chart, summary["flagged_rate"], words, ui=shown)
