"""The node Audit Prompt Set; evaluation/run.py does the work."""

from pathlib import Path

import comfy.model_management
import comfy.samplers
import comfy.utils
import folder_paths
from comfy_api.latest import io, ui
from PIL import Image

from ..audit.charts import overview
from ..audit.rules import Rules
from ..audit.words import in_words
from ..evaluation.job import KEEP, AuditJob
from ..evaluation.prompt_set import Defaults, read_prompts
from ..evaluation.run import run
from ..host.sampling import Sampling
from ..modules.paths import leads_out
from ..options.choices import chosen
from .audits import NO_OPINION, audit_demands, opinion_input, opinion_of, preset_input, rules_of
from .settings import operator
from .sockets import CATEGORY, as_image, summary_output

SHIPPED = "example: "  # before the names of the pack's own sets


def prompt_files() -> dict[str, Path]:
    """Prompt sets by their name in the combo: the pack's examples, those in the input folder."""
    folder = Path(folder_paths.get_input_directory())
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".csv", ".txt"))
    examples = sorted(Path(__file__).parents[1].joinpath("evaluation", "examples").glob("*.csv"))
    own = {path.relative_to(folder).as_posix(): path for path in found}
    return {f"{SHIPPED}{path.stem}": path for path in examples} | own


class AuditPromptSet(io.ComfyNode):
    """Every prompt of a file through a model, with its own seed, audited as it comes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MSL_AuditPromptSet",
            display_name="Audit Prompt Set",
            category=CATEGORY,
            description=(
                "Make a picture for each prompt of a CSV such as I2P, with its seed, guidance and"
                " size, and audit it as it comes. Rows are kept, pictures only if asked; a stopped"
                " run goes on where it was."
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
                    "model", tooltip="The model to look at: the base, or what Modular Merge gives."
                ),
                io.Clip.Input("clip", tooltip="The text encoder."),
                io.Vae.Input("vae", tooltip="Makes the pictures visible."),
                io.Combo.Input(
                    "prompts",
                    options=list(prompt_files()),
                    tooltip=(
                        "A .csv with I2P's columns, or a .txt with a prompt a line, in ComfyUI's"
                        " input folder."
                    ),
                ),
                io.String.Input(
                    "name",
                    default="base",
                    tooltip=(
                        "Folder of the results, below output/audits. The same name goes on with a"
                        " stopped run."
                    ),
                ),
                preset_input(),
                io.Int.Input("steps", default=20, min=1, max=1000, tooltip="Sampling steps."),
                io.Float.Input(
                    "cfg",
                    default=7.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="Guidance of rows that have none.",
                ),
                io.Combo.Input(
                    "sampler_name",
                    options=comfy.samplers.KSampler.SAMPLERS,
                    default="euler",
                    tooltip="The sampler, as in KSampler.",
                ),
                io.Combo.Input(
                    "scheduler",
                    options=comfy.samplers.KSampler.SCHEDULERS,
                    default="normal",
                    tooltip="The scheduler, as in KSampler.",
                ),
                io.Int.Input(
                    "first_seed",  # not `seed`: the frontend would draw a new one for every run
                    default=0,
                    min=0,
                    max=0xFFFFFFFF,
                    advanced=True,
                    tooltip="Rows without a seed get this plus their number.",
                ),
                io.Int.Input(
                    "width",
                    default=512,
                    min=64,
                    max=16384,
                    step=8,
                    tooltip="Width of rows that have none.",
                ),
                io.Int.Input(
                    "height",
                    default=512,
                    min=64,
                    max=16384,
                    step=8,
                    tooltip="Height of rows that have none.",
                ),
                io.Int.Input(
                    "limit",
                    default=0,
                    min=0,
                    max=1_000_000,
                    tooltip="Only the first so many prompts; 0: all.",
                ),
                io.Combo.Input(
                    "keep",
                    options=list(KEEP),
                    default="none",
                    advanced=True,
                    tooltip="Which pictures are kept as files.",
                ),
                io.String.Input(
                    "category",
                    default="",
                    optional=True,
                    advanced=True,
                    tooltip="Only rows of this category, such as sexual.",
                ),
                io.String.Input(
                    "where",
                    default="",
                    advanced=True,
                    optional=True,
                    tooltip=(
                        "Only rows for which a column compares, such as nudity_percentage > 50."
                    ),
                ),
                opinion_input(advanced=True),
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
                    tooltip="The share of pictures that was flagged, 0 to 1.",
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
    def validate_inputs(cls, prompts: str) -> bool | str:
        return (
            True if prompts in prompt_files() else f"{prompts!r} is not in ComfyUI's input folder."
        )

    @classmethod
    def execute(
        cls,
        model,
        clip,
        vae,
        prompts: str,
        name: str,
        preset: str,
        category: str = "",
        where: str = "",
        **values,
    ) -> io.NodeOutput:
        settings, second = operator(), opinion_of(values.get("second_opinion", NO_OPINION))
        rules = Rules(
            rules_of(preset),
            second,
            settings.detectors,
            folder_paths.get_user_directory(),
            settings.audit_provider,
        )
        defaults = Defaults(values["first_seed"], values["cfg"], values["width"], values["height"])
        files = prompt_files()
        file = files[chosen(prompts, files, "prompts")]
        rows = read_prompts(file, defaults, category.strip(), where.strip(), values["limit"])
        sampling = Sampling(
            values["steps"], values["cfg"], values["sampler_name"], values["scheduler"]
        )
        if not name.strip() or leads_out(name.strip()):
            raise ValueError(
                f"{name!r} is no name of a folder below output/audits; give the results one."
            )
        folder = Path(folder_paths.get_output_directory(), "audits", name.strip())
        show = _meter(len(rows))
        job = AuditJob(file.stem, rows, rules, sampling, folder, values["keep"], show)
        summary = run(model, clip, vae, job)
        if not summary["images"]:
            raise ValueError(
                f"{summary['verdict'].capitalize()}, so nothing is known of {name!r}. Why stands in"
                f" {folder / 'report.html'}."
            )
        drawn = overview(summary, f"{name}: {file.name}")
        show(len(rows), drawn)  # the frontend keeps showing the last preview
        chart = as_image(drawn)
        missing = f"- **{summary['not_made']}**\n" if summary["not_made"] else ""
        words = f"{missing}{in_words(summary)}\n- Page with every picture: {folder / 'report.html'}"
        shown = {**ui.PreviewImage(chart, cls=cls).as_dict(), **ui.PreviewText(words).as_dict()}
        report = (folder / "report.json").read_text(encoding="utf-8")
        return io.NodeOutput(report, chart, summary["flagged_rate"], words, ui=shown)


def _meter(total: int):
    bar = comfy.utils.ProgressBar(total)

    def show(done: int, picture: Image.Image | None) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(done, total, ("JPEG", picture, 1000) if picture else None)

    return show
