"""What the commands of the tests find imported (commanding.py)."""

import contextlib
import os

import modular_safety_lora.commands.audit
import modular_safety_lora.commands.seal

if os.environ.get("COMFYUI_PATH"):
    from modular_safety_lora.host.comfyui import enter_comfyui

    enter_comfyui()
    import comfy.sd  # noqa: F401
    import modular_safety_lora.commands.audit_prompts
    import modular_safety_lora.commands.train_safety
    import modular_safety_lora.commands.train_task
    import modular_safety_lora.merge.merge
    import modular_safety_lora.training.safety
    import modular_safety_lora.training.task  # noqa: F401

    with contextlib.suppress(ImportError):
        import peft  # noqa: F401
