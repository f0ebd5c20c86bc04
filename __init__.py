"""Modular Safety LoRA for ComfyUI."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """What ComfyUI calls to get the nodes.

    Imports happen here, so that the package imports without ComfyUI.
    """
    from .nodes import ModularSafetyExtension

    return ModularSafetyExtension()
