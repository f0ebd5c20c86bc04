"""The node Report Safety LoRA; reporting/run.py does the work."""

from pathlib import Path

import folder_paths
from comfy_api.latest import io, ui

from ..audit.report import as_text
from ..audit.rules import Counting, Rules
from ..evaluation.prompt_set import Defaults
from ..host.sampling_settings import Sampling
from ..reporting.models import Tuning
from ..reporting.run import ReportJob, report
from ..reporting.settings import Asking
from .audits import audit_demands, counting_inputs, known_presets, presets
from .embeddings import embeddings_state
from .inputs import Inputs, taken
from .progress import Meter
from .reading import by_user
from .settings import operator
from .sockets import CATEGORY, SafetyLora, TaskLora, as_image, summary_output

KINDS = (Asking, Counting, Sampling, Defaults)
UNUSED = ("threshold", "classes", "second_opinion")


class ReportSafetyLora(io.ComfyNode):
    """What a safety LoRA takes away, what it harms, what is left after tuning, where it acts."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        rows = Inputs(*KINDS, without=UNUSED)
        return io.Schema(
            node_id="MSL_ReportSafetyLora",
            display_name="Report Safety LoRA",
            category=CATEGORY,
            description=(
                "Measure a safety LoRA: what it takes away, what it harms, what is left of it after"
                " tuning, and where it acts. Its short form can be sealed into the file."
            ),
            search_aliases=["model card", "safety report", "evaluate safety lora", "benchmark"],
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="The base, straight from its loader."),
                io.Clip.Input("clip", tooltip="Its text encoder."),
                io.Vae.Input("vae", tooltip="Decodes the pictures."),
                SafetyLora.Input("safety", tooltip="The safety LoRA, one."),
                TaskLora.Input(
                    "tasks",
                    optional=True,
                    tooltip="Task LoRAs, merged beside it: how much of the concept is drawn then.",
                ),
                TaskLora.Input(
                    "on_top",
                    optional=True,
                    tooltip=(
                        "Task LoRAs that were trained on top of the safe model: what they bring"
                        " back."
                    ),
                ),
                *rows.shown("concept_preset"),
                *counting_inputs(rows, "preset"),
                *rows.shown("pictures_per_prompt", "prompts_per_kind"),
                *rows.shown("steps", "cfg", "sampler_name", "scheduler"),
                *rows.shown("first_seed", advanced=True),
                *rows.shown("width", "height"),
                *rows.shown("held_out", "near", "far", optional=True),
                *rows.aside("prompts", "adversarial", "concept_name"),
                *rows.rest(),
            ],
            outputs=[
                summary_output(),
                io.String.Output(
                    display_name="report",
                    tooltip="All numbers as JSON, for Seal Safety LoRA too.",
                ),
                io.Image.Output(
                    display_name="pictures",
                    tooltip="Some pictures by each model; what is counted is blurred.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs) -> str:
        return audit_demands() + embeddings_state(inputs)

    @classmethod
    def validate_inputs(cls, preset: str | None = None) -> bool | str:
        return known_presets(preset)

    @classmethod
    def execute(
        cls, model, clip, vae, safety: list, tasks: list | None = None, on_top=None, **inputs
    ) -> io.NodeOutput:
        asking, counting, sampling, defaults = taken(inputs, *KINDS)
        if len(safety) != 1:
            raise ValueError(
                f"{len(safety)} safety LoRAs are connected, and a report is of one. Connect one"
                " Load Safety LoRA (locked)."
            )
        settings = operator()
        own = settings.detectors, folder_paths.get_user_directory(), settings.audit_provider
        rules = Rules(*counting.among(presets()), *own)
        place = Path(folder_paths.get_output_directory(), "safety_reports")
        meter = Meter("step")
        tuning = Tuning(tasks or (), on_top or ())
        job = ReportJob(asking, rules, sampling, defaults, place, tuning, meter)
        with by_user():
            found = report(model, clip, vae, safety[0], job)
        meter(meter.pace.total, picture=found.grid)  # the frontend keeps showing the last preview
        shown = as_image(found.grid)
        words = f"{found.words}\n- Page with pictures: {found.folder / 'report.html'}"
        told = {**ui.PreviewImage(shown, cls=cls).as_dict(), **ui.PreviewText(words).as_dict()}
        return io.NodeOutput(words, as_text(found.report), shown, ui=told)
