"""The node Train Task LoRA; training/task.py does the work."""

from collections.abc import Sequence

from comfy_api.latest import io

from ..audit.report import as_text
from ..host.prompts import concepts_of, encode_texts
from ..merge.entries import Task
from ..options.table import TASK
from ..training.data import of_sockets
from ..training.keeping import Keeping
from ..training.prompting import Anchoring
from ..training.settings import Settings
from ..training.targets import check_pattern
from ..training.task import check_mode, train_task
from .audits import known_presets
from .captions import captions_told
from .inputs import taken
from .settings import check_operator
from .sockets import CATEGORY, SafetyLora, TaskLora, summary_output
from .training import LATER, Rows, Started, name_mistake, shown_result


class TrainTaskLora(io.ComfyNode):
    """A task LoRA on the loaded weights, apart from its safety LoRA or beside it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        rows = Rows(TASK, Anchoring)
        return io.Schema(
            node_id="MSL_TrainTaskLora",
            display_name="Train Task LoRA",
            category=CATEGORY,
            has_intermediate_output=True,
            description=(
                "Train a style or a subject so that Modular Merge can add it beside a safety LoRA"
                " without undoing that. The safety LoRA is never trained, and never in the file."
            ),
            search_aliases=[
                "train lora",
                "fine-tune",
                "dreambooth",
                "lora training",
                "modular lora",
            ],
            is_input_list=True,
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The base model, straight from its loader: LoRAs on it are refused.",
                ),
                io.Latent.Input(
                    "latents",
                    tooltip="The pictures, from Make Training Dataset or Resolution Bucket.",
                ),
                io.Conditioning.Input(
                    "positive",
                    tooltip=("The encoded captions: one for each picture, or one for all."),
                ),
                SafetyLora.Input(
                    "safety",
                    optional=True,
                    tooltip="The safety LoRAs that it will be merged with; recorded in the file.",
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip=(
                        "The text encoder, for previews, the anchored mode, and warnings of"
                        " pictures without a caption."
                    ),
                ),
                *rows.shown("safety_mode"),
                *rows.run(),
                *rows.shown("targets"),
                *rows.more(),
                io.String.Input(
                    "target_pattern",
                    default="",
                    tooltip="A regular expression over layer names, in place of targets.",
                    optional=True,
                    advanced=True,
                ),
                *rows.aside(
                    "concept_prompts",
                    "anchor_lambda",
                    "anchor_every",
                    "dropout",
                    "rslora",
                    "dora",
                    "ema",
                    "min_snr_gamma",
                    "noise_offset",
                ),
                io.Latent.Input(
                    "prior_latents",
                    optional=True,
                    tooltip="Prior preservation: pictures of what must stay as it is.",
                ),
                io.Conditioning.Input(
                    "prior_positive",
                    optional=True,
                    tooltip=("The encoded captions of prior_latents."),
                ),
                *rows.aside("prior_weight", "loss", *LATER),
                *rows.rest(),
            ],
            outputs=[
                TaskLora.Output(
                    display_name="tasks",
                    tooltip="The trained LoRA at strength 1, for Modular Merge.",
                ),
                io.Image.Output(
                    display_name="loss_plot", tooltip="Loss, and audited previews, over the steps."
                ),
                io.String.Output(
                    display_name="report",
                    tooltip="What was trained, and what the previews found, as JSON.",
                ),
                summary_output(),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(
        cls, save_as=None, preview_preset: Sequence[str | None] | None = None
    ) -> bool | str:
        known = known_presets(*(preview_preset or ()))
        return name_mistake(save_as) if known is True else known

    @classmethod
    def execute(
        cls,
        *,
        model,
        latents,
        positive,
        save_as,
        safety=(),
        clip=None,
        vae=None,
        target_pattern=None,
        prior_latents=None,
        prior_positive=None,
        **inputs,
    ) -> io.NodeOutput:
        values = {name: given[0] for name, given in inputs.items() if given}
        pattern = _first(target_pattern, "").strip()
        values |= {"targets": pattern} if pattern else {}
        settings, keeping, anchoring = taken(values, Settings, Keeping, Anchoring)
        (model,), safety, clip = model, _first(safety, []), _first(clip)
        start = Started(_first(save_as, ""), keeping, clip, _first(vae))
        check_operator(safety)
        concepts = anchoring.concept_prompts or concepts_of(safety)
        check_mode(settings, safety, concepts)
        check_pattern(model.model.diffusion_model, settings.targets)
        anchored = settings.safety_mode == "anchored"
        if anchored and clip is None:
            raise ValueError(
                "The safety mode 'anchored' needs clip, to encode the concept's prompts. Connect"
                " it."
            )
        dataset = of_sockets(latents, positive)
        prior = of_sockets(prior_latents, prior_positive or []) if prior_latents else None
        with start.held(settings):
            texts = encode_texts(clip, concepts if anchored else ()) if clip is not None else {}
            dataset = captions_told(dataset, texts, "positive")
            prior = prior and captions_told(prior, texts, "prior_positive")
            more = {"safety": safety, "concepts": concepts, "prior": prior}
            told = [*dataset.warnings, *(prior.warnings if prior else ())]
            job = start.job(settings, cls.hidden.unique_id, told)
            result, plot, words, shown = shown_result(
                lambda: train_task(model, dataset, texts, settings, job, **more)
            )
        report = as_text(result.report)
        return io.NodeOutput([Task(result.module)], plot, report, words, ui=shown)


def _first(given: Sequence | None, otherwise=None):
    """The value of an input that is no list; the node gets every input as one."""
    return given[0] if given else otherwise
