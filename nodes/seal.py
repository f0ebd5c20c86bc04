"""The node Seal Safety LoRA; modules/sealing.py does the work."""

from comfy_api.latest import io

from ..function.inputs import Moments
from ..modules.files import load_safety
from ..modules.paths import content_sha256
from ..modules.sealing import Sealing, seal_file
from .inputs import Inputs, taken
from .load import lora_names, lora_path, output_path, state_of
from .sockets import CATEGORY, SafetyLora, digests


class SealSafetyLora(io.ComfyNode):
    """A LoRA that someone trusts becomes a sealed safety LoRA."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        rows = Inputs(Sealing)
        return io.Schema(
            node_id="MSL_SealSafetyLora",
            display_name="Seal Safety LoRA",
            category=CATEGORY,
            description=(
                "Turn a LoRA that you trust to suppress a concept into a sealed safety LoRA with a"
                " fixed strength."
            ),
            search_aliases=["seal", "concept eraser", "import safety lora", "lock lora"],
            is_output_node=True,
            inputs=[
                io.Combo.Input(
                    "lora_name",
                    options=lora_names(None),
                    tooltip="A LoRA in the loras folder, of any format.",
                ),
                *rows.shown("concept", "strength"),
                io.String.Input(
                    "save_as", default="", tooltip="Name of the file, below the first loras folder."
                ),
                *rows.shown("prompts", "held_out", optional=True),
                *rows.rest(),
            ],
            outputs=[
                SafetyLora.Output(
                    display_name="safety", tooltip="The sealed safety LoRA, for Modular Merge."
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
    def execute(cls, lora_name: str, save_as: str, **inputs) -> io.NodeOutput:
        (how,), output = taken(inputs, Sealing), output_path(save_as)
        seal_file(lora_path(lora_name), output, how, moments=Moments().text())
        module = load_safety(output, output.name)
        shown = digests(seal=module.sha256, file=content_sha256(output))
        return io.NodeOutput([module], module.sha256, ui=shown)
