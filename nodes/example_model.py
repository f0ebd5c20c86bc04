"""The node Example Model; emoji/checkpoint.py makes what it loads."""

from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ..emoji.checkpoint import made_in
from ..emoji.files import FOLDER
from ..host.comfyui import load_checkpoint
from .sockets import CATEGORY


def offer_loras() -> None:
    """Put the example's LoRAs into ComfyUI's lists, behind all others."""
    folder_paths.add_model_folder_path("loras", str(FOLDER))


class ExampleModel(io.ComfyNode):
    """A small model that ships with the pack, read by ComfyUI's own checkpoint loader."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MSL_ExampleModel",
            display_name="Example Model",
            category=CATEGORY,
            description=(
                "A small model that draws emoji, to try these nodes with: nothing is downloaded."
                " Its LoRAs start with example- in the lists, its preset is emoji weapons."
            ),
            search_aliases=["try it", "demo model", "load checkpoint", "emoji"],
            inputs=[],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The network: 96 x 96 pixels."),
                io.Clip.Output(display_name="clip", tooltip="Its text encoder."),
                io.Vae.Output(display_name="vae", tooltip="Makes the pictures visible."),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        file = made_in(Path(folder_paths.get_temp_directory()))
        return io.NodeOutput(*load_checkpoint(file))
