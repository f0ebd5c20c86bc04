"""Train Task LoRA."""

from comfy_api.latest import io

from ..audit.report import as_text
from ..host.prompts import concepts_of, encode_texts, lines_of
from ..merge.entries import Task
from ..training.data import of_sockets
from ..training.engine.adapters import TARGETS
from ..training.settings import SAFETY_MODES, Settings
from ..training.task import train_task
from .settings import check_operator
from .sockets import CATEGORY, SafetyLora, TaskLora
from .training import adapter_of, job_of, more_inputs, run_inputs, settings_of, shown_result

LISTS = ("latents", "positive", "prior_latents", "prior_positive")
OWN = ("ema", "noise_offset", "prior_weight", "safety_mode", "anchor_lambda", "anchor_every")


class TrainTaskLora(io.ComfyNode):
    """A task LoRA on the loaded weights, apart from its safety module or beside it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        more = {"optional": True, "advanced": True}
        return io.Schema(
            node_id="MSL_TrainTaskLora",
            display_name="Train Task LoRA",
            category=CATEGORY,
            description="Train a style or a subject so that Modular Merge can add it beside a safety module without undoing "
            "it. The safety module is never trained and never in the file.",
            search_aliases=["train lora", "fine-tune", "dreambooth", "lora training", "modular lora"],
            is_input_list=True,
            inputs=[
                io.Model.Input("model", tooltip="The base model, straight from its loader: LoRAs on it are refused."),
                io.Latent.Input("latents", tooltip="The pictures, from Make Training Dataset or Resolution Bucket."),
                io.Conditioning.Input("positive", tooltip="One text for each picture, or one for all."),
                SafetyLora.Input(
                    "safety", optional=True, tooltip="The safety modules that it will be merged with; recorded in the file."
                ),
                io.Clip.Input("clip", optional=True, tooltip="The text encoder, for previews and for the anchored mode."),
                io.Combo.Input(
                    "safety_mode",
                    options=list(SAFETY_MODES),
                    tooltip="Where the safety module is meanwhile. detached (the paper's way): not on the model. anchored: "
                    "on it, frozen, and an anchor holds its concept where it put it; the task learns with it in place, and "
                    "works with that safety module only. frozen: the same without the anchor, which relearns the concept: "
                    "for comparison, not for use.",
                ),
                *run_inputs(1000),
                io.Combo.Input(
                    "targets",
                    options=list(TARGETS),
                    tooltip="The layers that are trained: all attention, cross-attention alone, attention and the "
                    "feed-forward layers, or every linear layer and convolution.",
                ),
                *more_inputs(),
                io.String.Input(
                    "target_pattern",
                    default="",
                    tooltip="A regular expression over layer names, in place of targets.",
                    **more,
                ),
                io.String.Input(
                    "concept_prompts",
                    multiline=True,
                    default="",
                    tooltip="Prompts of the concept for anchored, a line each. Empty: those that the safety module names.",
                    **more,
                ),
                io.Float.Input("anchor_lambda", default=3.0, min=0.0, max=1000.0, tooltip="Weight of the anchor.", **more),
                io.Int.Input(
                    "anchor_every",
                    default=3,
                    min=1,
                    max=1000,
                    tooltip="Steps from one anchor to the next, which then weighs as much as all: 1 costs more time.",
                    **more,
                ),
                io.Float.Input("dropout", default=0.0, min=0.0, max=0.9, step=0.01, tooltip="Dropout before A.", **more),
                io.Boolean.Input("rslora", default=False, tooltip="Scale by alpha / sqrt(rank).", **more),
                io.Boolean.Input("dora", default=False, tooltip="Train a DoRA, which also learns magnitudes.", **more),
                io.Float.Input(
                    "ema",
                    default=0.0,
                    min=0.0,
                    max=0.99999,
                    step=0.001,
                    round=0.00001,
                    tooltip="Save a moving average of this decay, such as 0.999; 0 saves the last step.",
                    **more,
                ),
                io.Float.Input(
                    "min_snr_gamma",
                    default=0.0,
                    min=0.0,
                    max=100.0,
                    tooltip="Min-SNR weighting of the loss; 5 is the paper's, 0 turns it off.",
                    **more,
                ),
                io.Float.Input("noise_offset", default=0.0, min=0.0, max=1.0, step=0.01, tooltip="Noise offset.", **more),
                io.Latent.Input(
                    "prior_latents", optional=True, tooltip="Prior preservation: pictures of what must stay as it is."
                ),
                io.Conditioning.Input("prior_positive", optional=True, tooltip="Their texts."),
                io.Float.Input("prior_weight", default=1.0, min=0.0, max=100.0, tooltip="Weight of these pictures.", **more),
            ],
            outputs=[
                TaskLora.Output(display_name="tasks", tooltip="The trained LoRA at strength 1, for Modular Merge."),
                io.Image.Output(display_name="loss_plot", tooltip="Loss, and audited previews, over the steps."),
                io.String.Output(display_name="report", tooltip="What was trained, and what the previews found, as JSON."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, **inputs) -> io.NodeOutput:
        values = {name: given if name in LISTS else given[0] for name, given in inputs.items() if given}
        clip, safety = values.get("clip"), values.get("safety") or []
        adapter = adapter_of(
            values,
            dropout=values.get("dropout", 0.0),
            use_rslora=values.get("rslora", False),
            use_dora=values.get("dora", False),
        )
        check_operator(safety)
        settings = Settings(
            adapter=adapter,
            targets=values.get("target_pattern", "").strip() or values["targets"],
            min_snr_gamma=values.get("min_snr_gamma") or None,
            **settings_of(values),
            **{name: values[name] for name in OWN if name in values},
        )
        concepts, texts = lines_of(values.get("concept_prompts", "")) or concepts_of(safety), {}
        if settings.safety_mode == "anchored":
            if clip is None:
                raise ValueError("The safety mode 'anchored' reads the concept's prompts with clip; connect it.")
            texts = encode_texts(clip, concepts)
        dataset = of_sockets(values["latents"], values["positive"])
        prior = of_sockets(values["prior_latents"], values.get("prior_positive", [])) if "prior_latents" in values else None
        job = job_of(values, clip, cls.hidden.unique_id)
        arguments = (values["model"], dataset, texts, settings, job, safety, concepts, prior)
        result, plot, shown = shown_result(lambda: train_task(*arguments))
        return io.NodeOutput([Task(result.module)], plot, as_text(result.report), ui=shown)
