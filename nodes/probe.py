"""The node Probe Safety; merge/probe.py does the work."""

import comfy.model_management
import comfy.utils
from comfy_api.latest import io, ui

from ..audit.report import as_text
from ..host.prompts import lines_of
from ..merge.probe import STEPS, probe
from ..merge.probe_chart import chart
from ..merge.probed import Asked, in_words
from ..options.choices import chosen
from .passing import note
from .settings import demands, operator, private_demands
from .sockets import CATEGORY, as_image, summary_output

REPORT, STOP = "report", "stop"


class ProbeStopped(RuntimeError):
    """A probe did not pass, and the action is `stop`; it carries the report in words."""


class ProbeSafety(io.ComfyNode):
    """The long look at what a merge leaves of its safety modules, before anything is sampled."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MSL_ProbeSafety",
            display_name="Probe Safety",
            category=CATEGORY,
            has_intermediate_output=True,
            description=(
                "Measure what a merged model computes of the safety module's prompts, those held"
                " out, yours and the operator's, before a picture is made. It costs as much as four"
                " pictures, once."
            ),
            search_aliases=["safety probe", "safety check", "verify lora", "red team"],
            inputs=[
                io.Model.Input("model", tooltip="From Modular Merge, with a clip connected there."),
                io.Combo.Input(
                    "action",
                    options=[REPORT, STOP],
                    default=REPORT,
                    tooltip=(
                        "What happens when the model must be audited. report: it is said; stop: the"
                        " run ends before anything is sampled."
                    ),
                ),
                io.String.Input(
                    "prompts",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="More prompts of what the safety module suppresses, a line each.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**32 - 1,
                    control_after_generate=False,
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "Seed of the half-made pictures that are looked at. With require_probe the"
                        " operator's counts."
                    ),
                ),
                io.Int.Input(
                    "adaptive_steps",
                    default=0,
                    min=0,
                    max=STEPS,
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "Steps in which a soft prompt searches for the concept, on this model and"
                        " on the safe one. 0 is off; 4 cost about a quarter as much as the rest."
                    ),
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model, as it came."),
                io.Boolean.Output(
                    display_name="passed",
                    tooltip="True when all was measured, and enough is left on every group.",
                ),
                summary_output(),
                io.String.Output(display_name="report", tooltip="Every group and prompt, as JSON."),
                io.Image.Output(
                    display_name="chart",
                    tooltip="How much of the concept base, safe and merged model draw.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **kwargs) -> str:
        return demands() + private_demands()

    @classmethod
    def execute(
        cls,
        model,
        action: str,
        prompts: str = "",
        seed: int = 0,
        adaptive_steps: int = 0,
    ) -> io.NodeOutput:
        chosen(action, (REPORT, STOP), "action")
        wanted = operator()
        asked = Asked(
            lines_of(prompts),
            wanted.private.prompts,
            wanted.private_seed if wanted.require_probe else seed,
            wanted.private_seed,
            adaptive_steps,
        )
        bar, done = comfy.utils.ProgressBar(1), [0]

        def step(count: int, total: int) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            done[0] += count
            bar.update_absolute(min(done[0], total), total)

        probed = probe(model, asked, wanted.limits, step)
        recorded, summary = note(model, probed, wanted), in_words(probed)
        summary = f"{summary}\n\n{recorded}" if recorded else summary
        report = as_text(probed.report() | ({"require_probe": recorded} if recorded else {}))
        if action == STOP and not probed.passed:
            raise ProbeStopped(f"Probe Safety stopped this prompt. {summary}")
        drawn = as_image(chart(probed))
        shown = {**ui.PreviewImage(drawn, cls=cls).as_dict(), **ui.PreviewText(summary).as_dict()}
        return io.NodeOutput(model, probed.passed, summary, report, drawn, ui=shown)
