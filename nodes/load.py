"""The nodes Load Safety LoRA (locked) and Load Task LoRA; modules/files.py reads the files."""

from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ..merge.entries import Task
from ..merge.settings import Strengths
from ..modules.errors import ModuleFileError
from ..modules.files import check_role, load_safety, load_task
from ..modules.paths import below, content_sha256, find
from ..modules.roles import role_of
from ..modules.tensors import metadata
from .inputs import Inputs, mistake, taken
from .settings import check_operator, demands
from .sockets import CATEGORY, SafetyLora, TaskLora, digests

ENDING = ".safetensors"


def lora_names(*roles: str | None) -> list[str]:
    """The .safetensors files of these roles below the loras folders, for a combo.

    Files of no known role, as those that can't be read, stand with those that state none: they are
    refused with a reason when they are loaded.
    """
    names = [name for name in folder_paths.get_filename_list("loras") if name.endswith(ENDING)]
    found = {name: folder_paths.get_full_path("loras", name) for name in names}
    return [name for name, path in found.items() if path and role_of(Path(path)) in roles]


def lora_mistake(lora_name: str | None, role: str) -> bool | str:
    """What of a chosen file is known before anything runs: that it is there, and its role."""
    return lora_name is None or mistake(
        lambda: check_role(metadata(lora_path(lora_name), lora_name), role, lora_name)
    )


def lora_path(name: str):
    return find(name, folder_paths.get_folder_paths("loras"))


def output_path(save_as: str) -> Path:
    """The file that a name means, below the first loras folder.

    Raises ValueError for an empty name, ModuleFileError for one that leads out of the folder.
    """
    name = save_as.strip().removesuffix(".safetensors")
    if not name or name.endswith(("/", "\\")):
        raise ValueError("save_as is empty; give the file a name.")
    return below(f"{name}.safetensors", folder_paths.get_folder_paths("loras")[0])


def state_of(lora_name: str) -> str:
    """The SHA-256 of a LoRA file, so that a node runs again when the file is replaced.

    For a name that can't be found it is the error's text; execute raises it.
    """
    try:
        return content_sha256(lora_path(lora_name))
    except (ModuleFileError, OSError) as error:
        return str(error)


class LoadSafetyLora(io.ComfyNode):
    """Reads a sealed safety LoRA; its strength is what it was sealed with."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MSL_LoadSafetyLora",
            display_name="Load Safety LoRA (locked)",
            category=CATEGORY,
            has_intermediate_output=True,
            description=(
                "Load a sealed safety LoRA. It must be intact, and it works at the strength it was"
                " sealed with."
            ),
            search_aliases=["safety lora", "concept erasure", "load lora", "modular safety"],
            inputs=[
                io.Combo.Input(
                    "lora_name",
                    options=lora_names("safety"),
                    tooltip="A sealed safety LoRA in the loras folder; others are not listed.",
                ),
                io.String.Input(
                    "sha256",
                    default="",
                    tooltip=(
                        "The seal that this workflow expects. Empty accepts any intact seal. Run"
                        " once, press the node's button Copy seal and paste it here: the workflow"
                        " then runs with exactly this file."
                    ),
                ),
                SafetyLora.Input(
                    "safety",
                    optional=True,
                    tooltip="Other safety LoRAs, to use several at once.",
                ),
            ],
            outputs=[
                SafetyLora.Output(
                    display_name="safety", tooltip="The safety LoRAs, for Modular Merge."
                ),
                io.String.Output(
                    display_name="sha256", tooltip="The seal of the file that was loaded."
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, lora_name: str, **kwargs) -> str:
        return state_of(lora_name) + demands()

    @classmethod
    def validate_inputs(cls, lora_name: str | None = None) -> bool | str:
        return lora_mistake(lora_name, "safety")

    @classmethod
    def execute(cls, lora_name: str, sha256: str = "", safety: list | None = None) -> io.NodeOutput:
        module = load_safety(lora_path(lora_name), lora_name, sha256)
        check_operator([module])
        shown = digests(seal=module.sha256, file=content_sha256(lora_path(lora_name)))
        return io.NodeOutput([*(safety or []), module], module.sha256, ui=shown)


class LoadTaskLora(io.ComfyNode):
    """Reads any LoRA that ComfyUI can read, with its weights in the merge."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        rows = Inputs(Strengths)
        return io.Schema(
            node_id="MSL_LoadTaskLora",
            display_name="Load Task LoRA",
            category=CATEGORY,
            description=(
                "Load a task LoRA (a style, a subject) to be merged beside the safety LoRA. Every"
                " format that ComfyUI reads works."
            ),
            search_aliases=["task lora", "load lora", "style lora", "lora stack"],
            inputs=[
                io.Combo.Input(
                    "lora_name",
                    options=lora_names("task", None),
                    tooltip="A LoRA in the loras folder; sealed safety LoRAs are not listed.",
                ),
                *rows.shown("strength_model", "strength_clip"),
                TaskLora.Input(
                    "tasks", optional=True, tooltip="Other task LoRAs; their order does not matter."
                ),
                *rows.rest(),
            ],
            outputs=[
                TaskLora.Output(display_name="tasks", tooltip="The task LoRAs, for Modular Merge.")
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, lora_name: str, **kwargs) -> str:
        return state_of(lora_name)

    @classmethod
    def validate_inputs(cls, lora_name: str | None = None) -> bool | str:
        return lora_mistake(lora_name, "task")

    @classmethod
    def execute(cls, lora_name: str, tasks: list | None = None, **inputs) -> io.NodeOutput:
        (strengths,) = taken(inputs, Strengths)
        task = Task(load_task(lora_path(lora_name), lora_name), **vars(strengths))
        return io.NodeOutput([*(tasks or []), task])
