"""The node Train Safety LoRA; training/safety.py does the work."""

from comfy_api.latest import io

from ..host.prompts import PRESETS, encode_texts, lines_of, prompts_of
from ..modules.concepts import texts_of
from ..options.table import SAFETY, values_of
from ..training.safety import train_safety
from ..training.settings import Erasure, settings_of
from ..training.words import in_words
from .sockets import CATEGORY, SafetyLora, summary_output
from .training import Rows, held_for, job_of, shown_result

NO_PRESET = "none"


class TrainSafetyLora(io.ComfyNode):
    """ESD or SDD as a LoRA, from prompts alone, sealed."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        rows = Rows(SAFETY)
        return io.Schema(
            node_id="MSL_TrainSafetyLora",
            display_name="Train Safety LoRA",
            category=CATEGORY,
            has_intermediate_output=True,
            description=(
                "Train a safety module that takes a concept away, from prompts alone: no pictures"
                " of it are needed. The file is sealed at strength 1."
            ),
            search_aliases=[
                "concept erasure",
                "esd",
                "sdd",
                "unlearning",
                "train safety lora",
                "remove concept",
            ],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The base model, straight from its loader: LoRAs on it are refused.",
                ),
                io.Clip.Input("clip", tooltip="Its text encoder."),
                io.String.Input(
                    "concept",
                    default="",
                    tooltip="What to take away; several prompts are separated by commas.",
                ),
                io.Combo.Input(
                    "concept_preset",
                    options=[NO_PRESET, *PRESETS],
                    tooltip=(
                        "Prompts of a published work on nudity, besides those in concept. The help"
                        " page has the list."
                    ),
                ),
                *rows.shown("method"),
                *rows.run(),
                io.String.Input(
                    "retain",
                    multiline=True,
                    default="",
                    optional=True,
                    tooltip=(
                        "Prompts of what must stay as it is, a line each: what is near the concept"
                        " and should not go with it, such as 'a person wearing clothes'."
                    ),
                ),
                io.Int.Input(
                    "resolution",
                    default=512,
                    min=64,
                    max=4096,
                    step=64,
                    tooltip="Side, in pixels, of the half-made pictures that it trains on.",
                ),
                *rows.more(),
                *rows("eta", "guidance", "sampling_steps"),
                *rows.rest(),
                io.String.Input(
                    "held_out",
                    multiline=True,
                    default="",
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "More prompts of the concept, a line each, that are never trained on: they"
                        " are sealed in the file, and Probe Safety measures on them."
                    ),
                ),
            ],
            outputs=[
                SafetyLora.Output(
                    display_name="safety", tooltip="The sealed module, for Modular Merge."
                ),
                io.Image.Output(
                    display_name="loss_plot", tooltip="Loss, and audited previews, over the steps."
                ),
                io.String.Output(
                    display_name="sha256", tooltip="Its seal, to pin in Load Safety LoRA (locked)."
                ),
                summary_output(),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, model, clip, concept: str, concept_preset: str, method: str, **values
    ) -> io.NodeOutput:
        settings, erasure = settings_of(values), Erasure(method, **values_of(Erasure, values))
        concepts = prompts_of(
            concept, preset=None if concept_preset == NO_PRESET else concept_preset
        )
        retain = lines_of(values.get("retain", ""))
        more = {"erasure": erasure, "retain": retain, "resolution": values["resolution"]}
        more["held_out"] = texts_of(lines_of(values.get("held_out", "")))
        with held_for({**values, "clip": clip}, settings):
            texts = encode_texts(clip, [*concepts, *retain])
            job = job_of(values, clip, cls.hidden.unique_id)
            result, plot, shown = shown_result(
                lambda: train_safety(model, texts, concepts, settings, job, **more)
            )
        module, words = result.module, in_words(result.report)
        return io.NodeOutput([module], plot, module.sha256, words, ui=shown)
