"""The sockets of the pack: each carries a list of modules, so that loaders can be chained."""

from comfy_api.latest import io

CATEGORY = "safety/modular LoRA"

SafetyLora = io.Custom("MSL_SAFETY_LORA")  # list[Module]
TaskLora = io.Custom("MSL_TASK_LORA")  # list[Task]
