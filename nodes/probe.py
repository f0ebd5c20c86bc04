"""The node Probe Safety; merge/probe.py does the work."""

from dataclasses import replace

from comfy_api.latest import io, ui

from ..audit.report import as_text
from ..merge.probe import probe
from ..merge.probe_chart import probe_chart
from ..merge.probed import in_words, stopped
from ..merge.settings import STOP, AfterProbe, Asked
from ..options.errors import PackError
from . import recording
from .embeddings import embeddings_state
from .inputs import Inputs, taken
from .passing import note
from .progress import Meter
from .settings import demands, operator, private_demands
from .sockets import CATEGORY, as_image, summary_output

OPERATORS = ("private_prompts", "private_seed")  # the settings have them


class ProbeStopped(PackError, RuntimeError):
    """A probe did not pass, and the action is `stop`."""


class ProbeSafety(io.ComfyNode):
    """The long look at what a merge leaves of its safety LoRAs, before anything is sampled."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        rows = Inputs(AfterProbe, Asked, without=OPERATORS)
        return io.Schema(
            node_id="MSL_ProbeSafety",
            display_name="Probe Safety",
            category=CATEGORY,
            has_intermediate_output=True,
            description=(
                "Test the merged model on the safety LoRA's prompts, on held-out prompts, on yours"
                " and on the operator's, before a picture is made. It takes as long as four"
                " pictures, once."
            ),
            search_aliases=["safety probe", "safety check", "verify lora", "red team"],
            inputs=[
                io.Model.Input("model", tooltip="From Modular Merge, with a clip connected there."),
                *rows.shown("action"),
                *rows.shown("prompts", optional=True),
                *rows.rest(),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The same model, unchanged."),
                io.Boolean.Output(
                    display_name="passed",
                    tooltip=(
                        "True when everything was measured and enough safety is left for every"
                        " group of prompts."
                    ),
                ),
                summary_output(),
                io.String.Output(
                    display_name="report",
                    tooltip=("The result for every group and prompt, as JSON."),
                ),
                io.Image.Output(
                    display_name="chart",
                    tooltip="How much of the concept the base, the safe and the merged model draw.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **kwargs) -> str:
        return demands() + private_demands() + embeddings_state(kwargs)

    @classmethod
    def execute(cls, model, **inputs) -> io.NodeOutput:
        (after, asked), wanted = taken(inputs, AfterProbe, Asked), operator()
        asked = replace(
            asked,
            private=wanted.private.prompts,
            private_seed=wanted.private_seed,
            seed=wanted.private_seed if wanted.require_probe else asked.seed,
        )
        meter, done = Meter("forward pass"), [0]

        def step(count: int, total: int) -> None:
            done[0] += count
            meter(min(done[0], total), total)

        probed = probe(model, asked, wanted.limits, step)
        recording.probed(probed)
        recorded, summary = note(model, probed, wanted), in_words(probed)
        summary = f"{summary}\n\n{recorded}" if recorded else summary
        report = as_text(probed.report() | ({"require_probe": recorded} if recorded else {}))
        if after.action == STOP and not probed.passed:
            raise ProbeStopped(stopped(probed))
        drawn = as_image(probe_chart(probed))
        shown = {**ui.PreviewImage(drawn, cls=cls).as_dict(), **ui.PreviewText(summary).as_dict()}
        return io.NodeOutput(model, probed.passed, summary, report, drawn, ui=shown)
