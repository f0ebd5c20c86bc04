"""The node Train Safety LoRA; training/safety.py does the work."""

from comfy_api.latest import io

from ..host.prompts import encode_texts
from ..options.table import SAFETY
from ..training.keeping import Keeping
from ..training.objectives import METHODS, Erasure
from ..training.prompting import Erased
from ..training.safety import train_safety
from ..training.settings import Settings, fitted
from .audits import known_presets
from .inputs import taken
from .sockets import CATEGORY, SafetyLora, summary_output
from .training import LATER, Rows, Started, name_mistake, shown_result


class TrainSafetyLora(io.ComfyNode):
    """A concept taken away by a LoRA, from prompts alone, sealed."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        rows = Rows(SAFETY, Erased, without=("concept_file",))  # which a command line has
        return io.Schema(
            node_id="MSL_TrainSafetyLora",
            display_name="Train Safety LoRA",
            category=CATEGORY,
            has_intermediate_output=True,
            description=(
                "Train a safety LoRA that takes a concept away, from prompts alone, without"
                " pictures of it. The file is sealed at strength 1."
            ),
            search_aliases=[
                "concept erasure",
                "esd",
                *METHODS,
                "salun",
                "concept ablation",
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
                *rows.shown("concept"),
                *rows.shown("concept_preset", default=None),
                *rows.shown("method"),
                *rows.run(),
                *rows.shown("retain", optional=True),
                *rows.shown("resolution"),
                *rows.more(),
                *rows.aside("eta", "guidance", "sampling_steps", *LATER, "held_out"),
                *rows.aside("surrogate", "near", "more_presets"),
                *rows.rest(),
            ],
            outputs=[
                SafetyLora.Output(
                    display_name="safety", tooltip="The sealed safety LoRA, for Modular Merge."
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
    def validate_inputs(cls, save_as=None, preview_preset: str | None = None) -> bool | str:
        known = known_presets(preview_preset)
        return name_mistake(save_as) if known is True else known

    @classmethod
    def execute(cls, model, clip, save_as: str, vae=None, **inputs) -> io.NodeOutput:
        kinds = Settings, Keeping, Erasure, Erased
        settings, keeping, erasure, erased = taken(inputs, *kinds)
        settings = fitted(settings, erasure)
        start = Started(save_as, keeping, clip, vae)
        with start.held(settings):
            others = erased.others(erasure.method)
            texts = encode_texts(clip, erased.texts)
            job = start.job(settings, cls.hidden.unique_id)
            result, plot, words, shown = shown_result(
                lambda: train_safety(
                    model,
                    texts,
                    erased.concepts,
                    settings,
                    job,
                    erasure=erasure,
                    retain=erased.retained(texts),
                    **others,
                )
            )
        module = result.module
        return io.NodeOutput([module], plot, module.sha256, words, ui=shown)
