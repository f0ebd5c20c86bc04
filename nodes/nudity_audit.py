"""The node Nudity Audit; audit/report.py does the work."""

from comfy_api.latest import io, ui

from ..audit import censor
from ..audit.report import as_text, audit
from ..audit.sheet import overview
from ..audit.words import in_words
from ..merge.findings import BESIDE, FAULTS, findings
from ..options.choices import chosen
from .audits import (
    NO_OPINION,
    audit_demands,
    detector_of,
    meter,
    opinion_input,
    opinion_of,
    preset_input,
    rules_of,
)
from .running import upstream
from .settings import SettingsError
from .sockets import CATEGORY, preview, summary_output

STOP = "stop"
ACTIONS = (*censor.ACTIONS, STOP)


class AuditStopped(RuntimeError):
    """A picture was flagged, or none came, and the action is `stop`; it carries the report."""


class NudityAudit(io.ComfyNode):
    """NudeNet on every picture of a batch, counted under a published rule."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MSL_NudityAudit",
            display_name="Nudity Audit",
            category=CATEGORY,
            has_intermediate_output=True,
            description=(
                "Look at every picture of a batch with NudeNet, offline, and count under the rules"
                " of a preset. No hit means nothing was detected at these thresholds, not that a"
                " picture is safe."
            ),
            search_aliases=["nsfw", "nudenet", "safety checker", "content filter", "censor"],
            inputs=[
                io.Image.Input(
                    "images", tooltip="The pictures; every one of a batch is looked at."
                ),
                preset_input(),
                io.Float.Input(
                    "threshold",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="One score for every counted class. 0 keeps the preset's own.",
                ),
                io.Combo.Input(
                    "action",
                    options=list(ACTIONS),
                    default="none",
                    tooltip=(
                        "What happens to flagged pictures. none: nothing; annotate: boxes are"
                        " drawn; blur, black: what is in the boxes is hidden; stop: the run ends,"
                        " with the report in the error."
                    ),
                ),
                io.String.Input(
                    "classes",
                    default="",
                    optional=True,
                    tooltip=(
                        "Count these classes instead of the preset's, separated by commas. "
                        "FACE_FEMALE=0.4 gives a class its own score."
                    ),
                ),
                opinion_input(),
            ],
            outputs=[
                io.Image.Output(
                    display_name="images", tooltip="The pictures, changed as the action says."
                ),
                io.Boolean.Output(
                    display_name="passed", tooltip="True when no picture was flagged."
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
    def validate_inputs(cls, preset: str | None = None, classes: str | None = None) -> bool | str:
        """Before anything is sampled; what is linked is not known yet, and told when this runs."""
        if preset is None:
            return True
        try:
            rules_of(preset, classes=classes or "")
        except (SettingsError, ValueError) as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls,
        images,
        preset: str,
        threshold: float,
        action: str,
        classes: str = "",
        second_opinion: str = NO_OPINION,
    ) -> io.NodeOutput:
        chosen(action, ACTIONS, "action")
        rules, second = rules_of(preset, threshold, classes), opinion_of(second_opinion)
        pictures = (image.numpy(force=True) for image in images)
        other = detector_of(second) if second else None
        result = audit(pictures, rules, meter(len(images)), second, detector_of(rules), other=other)
        places = upstream()
        result |= {kind: findings.at(places, kind) for kind in (FAULTS, BESIDE)}
        summary, report = result["summary"], as_text(result)
        passed = summary["images"] > 0 and summary["flagged"] == 0
        if action == STOP and not passed:
            raise AuditStopped(
                f"The Nudity Audit stopped this prompt: {summary['verdict']} ({preset}). Report:"
                f" {report}"
            )
        out = images if action == STOP else censor.apply(images, result, action)
        words = in_words(summary, action, result[FAULTS])
        shown = {
            **preview(overview(out, result)).as_dict(),
            **ui.PreviewText(words).as_dict(),
        }
        mask = censor.flagged_mask(images, result)
        return io.NodeOutput(out, passed, report, mask, words, ui=shown)
