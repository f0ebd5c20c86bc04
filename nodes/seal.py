"""The node Seal Safety LoRA; modules/sealing.py does the work."""

from comfy_api.latest import io, ui

from ..function.inputs import Moments
from ..host.prompts import lines_of
from ..modules.files import load_safety
from ..modules.sealing import seal_file
from .load import lora_names, lora_path, output_path, state_of
from .sockets import CATEGORY, SafetyLora


class SealSafetyLora(io.ComfyNode):
    """A LoRA that someone trusts becomes a sealed safety module."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MSL_SealSafetyLora",
            display_name="Seal Safety LoRA",
            category=CATEGORY,
            description=(
                "Turn a LoRA that you trust to suppress a concept into a sealed safety module, at a"
                " fixed strength."
            ),
            search_aliases=["seal", "concept eraser", "import safety lora", "lock lora"],
            is_output_node=True,
            inputs=[
                io.Combo.Input(
                    "lora_name",
                    options=lora_names(),
                    tooltip="A LoRA in the loras folder, of any format.",
                ),
                io.String.Input(
                    "concept",
                    default="",
                    tooltip="What it suppresses, for people who read the file.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.01,
                    max=10.0,
                    step=0.01,
                    tooltip="The strength it always works at from now on.",
                ),
                io.String.Input(
                    "save_as", default="", tooltip="Name of the file, below the first loras folder."
                ),
                io.String.Input(
                    "prompts",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip=(
                        "Prompts of the concept, a line each: Modular Merge measures on them what"
                        " is left of the module. Empty: the concept, split at commas."
                    ),
                ),
                io.String.Input(
                    "held_out",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip=(
                        "More prompts of the concept, a line each, that it was not trained on:"
                        " Probe Safety measures on them too."
                    ),
                ),
            ],
            outputs=[
                SafetyLora.Output(
                    display_name="safety", tooltip="The sealed module, for Modular Merge."
                ),
                io.String.Output(
                    display_name="sha256", tooltip="Its seal, to pin in Load Safety LoRA (locked)."
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, lora_name: str, **kwargs) -> str:
        return state_of(lora_name)

    @classmethod
    def execute(
        cls,
        lora_name: str,
        concept: str,
        strength: float,
        save_as: str,
        prompts: str = "",
        held_out: str = "",
    ) -> io.NodeOutput:
        output = output_path(save_as)
        texts = {"prompts": lines_of(prompts), "held_out": lines_of(held_out)}
        seal_file(
            lora_path(lora_name), output, concept, strength, moments=Moments().text(), **texts
        )
        module = load_safety(output, output.name)
        return io.NodeOutput([module], module.sha256, ui=ui.PreviewText(module.sha256))
