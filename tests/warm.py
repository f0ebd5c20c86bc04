"""What the commands of the tests find imported (cli.py)."""

import contextlib
import os

import modular_safety_lora.commands.audit
from modular_safety_lora.drawing.figures import library

library()
if os.environ.get("COMFYUI_PATH"):
    from modular_safety_lora.host.comfyui import enter_comfyui

    enter_comfyui()
    import comfy.sd  # noqa: F401
    import modular_safety_lora.commands.train_safety
    import modular_safety_lora.commands.train_task
    import modular_safety_lora.merge.merge
    import modular_safety_lora.training.safety
    import modular_safety_lora.training.task  # noqa: F401

    with contextlib.suppress(ImportError):
        import peft  # noqa: F401
