"""The node Nudity Audit; audit/report.py does the work."""

from comfy_api.latest import io, ui

from ..audit import censor
from ..audit.censor import STOP, Acting
from ..audit.report import as_text, judged
from ..audit.rules import Counting
from ..audit.sheet import audit_sheet
from ..audit.words import in_words, stopped
from ..merge.findings import FAULTS
from ..options.errors import PackError
from . import recording
from .audits import (
    audit_demands,
    counting_inputs,
    known_counting,
    meter,
    opinion_of,
    presets,
)
from .carrying import carry
from .inputs import Inputs, taken
from .made_by import beside_pictures
from .sockets import CATEGORY, preview, summary_output


class AuditStopped(PackError, RuntimeError):
    """A picture was flagged, or none came, and the action is `stop`."""


class NudityAudit(io.ComfyNode):
    """NudeNet on every picture of a batch, counted under a published rule."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        rows = Inputs(Counting, Acting)
        return io.Schema(
            node_id="MSL_NudityAudit",
            display_name="Nudity Audit",
            category=CATEGORY,
            has_intermediate_output=True,
            description=(
                "Check every picture of a batch with NudeNet, offline, and count by the rules of a"
                " preset. No hit means that nothing was detected at these thresholds, not that a"
                " picture is safe."
            ),
            search_aliases=["nsfw", "nudenet", "safety checker", "content filter", "censor"],
            inputs=[
                io.Image.Input(
                    "images", tooltip="The pictures. Every picture of a batch is checked."
                ),
                *counting_inputs(rows, "preset"),
                *rows.shown("threshold", "action"),
                *rows.shown("classes", optional=True),
                *counting_inputs(rows, "second_opinion", optional=True),
                *rows.rest(),
            ],
            outputs=[
                io.Image.Output(
                    display_name="images", tooltip="The pictures, changed as the action says."
                ),
                io.Boolean.Output(
                    display_name="passed",
                    tooltip=("True when at least one picture was checked and none was flagged."),
                ),
                io.String.Output(
                    display_name="report", tooltip="Every detection and the summary, as JSON."
                ),
                io.Mask.Output(
                    display_name="flagged", tooltip="A mask: white where a counted detection lies."
                ),
                summary_output(),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **_) -> str:
        return audit_demands()

    @classmethod
    def validate_inputs(
        cls,
        preset: str | None = None,
        classes: str | None = None,
        second_opinion: str | None = None,
    ) -> bool | str:
        return known_counting(preset, classes, second_opinion)

    @classmethod
    def execute(cls, images, **inputs) -> io.NodeOutput:
        counting, acting = taken(inputs, Counting, Acting)
        preset, second = counting.among(presets())
        pictures = (image.numpy(force=True) for image in images)
        opinions = opinion_of(preset), opinion_of(second) if second else None
        result = judged(pictures, *opinions, meter(len(images)))
        beside = beside_pictures()
        result |= beside
        summary, report = result["summary"], as_text(result)
        passed = summary["images"] > 0 and summary["flagged"] == 0
        recording.audited(summary, "Nudity Audit", acting.action, beside)
        if acting.action == STOP and not passed:
            raise AuditStopped(stopped(result))
        out = images if acting.action == STOP else censor.apply(images, result, acting.action)
        if acting.write_verdict:
            carry("Nudity Audit", out, result["images"], opinions[0], acting.action)
        words = in_words(summary, acting.action, result[FAULTS], result["about"])
        shown = {
            **preview(audit_sheet(out, result)).as_dict(),
            **ui.PreviewText(words).as_dict(),
        }
        mask = censor.flagged_mask(images, result)
        return io.NodeOutput(out, passed, report, mask, words, ui=shown)
