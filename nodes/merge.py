"""The node Modular Merge; merge/merge.py does the work."""

import comfy.model_management
import comfy.utils
from comfy_api.latest import io, ui

from ..audit.report import as_text
from ..merge.interference import picture
from ..merge.merge import merge
from ..merge.settings import Merging
from ..merge.watchers import refusing
from ..merge.words import in_words
from . import recording
from .inputs import Inputs, taken
from .settings import check_operator, check_tasks, demands, operator
from .sockets import CATEGORY, SafetyLora, TaskLora, as_image, digests, summary_output


class ModularMerge(io.ComfyNode):
    """W* = W0 + dW_safety + sum of w_i dW_task_i, every change taken against the loaded weights."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        rows = Inputs(Merging)
        return io.Schema(
            node_id="MSL_ModularMerge",
            display_name="Modular Merge",
            category=CATEGORY,
            has_intermediate_output=True,
            description=(
                "Add a safety LoRA and task LoRAs to a model, each against the loaded weights, in"
                " any order. The run stops if any tensor of the safety LoRA can't be applied."
            ),
            search_aliases=["safety merge", "apply lora", "lora merge", "modular lora"],
            inputs=[
                io.Model.Input("model", tooltip="The base model, best straight from its loader."),
                SafetyLora.Input("safety", tooltip="From Load Safety LoRA (locked)."),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip=(
                        "The text encoder. Lets the merge test the safety LoRA's prompts, and takes"
                        " LoRAs that change it."
                    ),
                ),
                TaskLora.Input(
                    "tasks",
                    optional=True,
                    tooltip="From Load Task LoRA. Without it you get the safe base.",
                ),
                *rows.shown("foreign_changes"),
                *rows.shown("on_conflict", optional=True),
                *rows.rest(),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The merged model, locked."),
                io.Clip.Output(
                    display_name="clip", tooltip="The merged text encoder, if one came in."
                ),
                io.String.Output(
                    display_name="report",
                    tooltip=("What was applied, and how much safety is left, as JSON."),
                ),
                io.Image.Output(
                    display_name="interference",
                    tooltip=("How much of the safety LoRA is left, by prompt and by layer."),
                ),
                summary_output(),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **kwargs) -> str:
        return demands()

    @classmethod
    def execute(cls, model, safety, clip=None, tasks=None, **inputs) -> io.NodeOutput:
        (how,) = taken(inputs, Merging)
        bar = comfy.utils.ProgressBar(1)

        def progress(done: int, total: int) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            bar.update_absolute(done, total)

        with refusing():
            wanted = operator()
            check_operator(safety)  # also what comes from a node that trains or seals
            check_tasks([each.module for each in tasks or []], wanted.allowed_tasks)
            limits = wanted.limits
            merged = merge(
                model, safety, tasks or [], clip, **vars(how), limits=limits, progress=progress
            )
        recording.merged(merged)
        report, summary = as_text(merged.report), in_words(merged.report)
        return io.NodeOutput(
            merged.model,
            merged.clip,
            report,
            as_image(picture(merged.interference, merged.computed, limits)),
            summary,
            ui={
                **ui.PreviewText(summary).as_dict(),
                **digests(base=merged.report["base_sha256"]),
            },
        )
