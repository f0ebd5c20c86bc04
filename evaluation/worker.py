"""What a worker of a prompt set does: it loads a model of its own, and makes what it is given.

It is imported before ComfyUI can be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..host.comfyui import enter_comfyui
from .job import AuditJob
from .prompt_set import Prompt

if TYPE_CHECKING:
    from .rows import Made
    from .run import Maker

Task = tuple[Prompt, tuple[str, ...]]
_maker: list[Maker] = []  # of this process


@dataclass(frozen=True)
class Recipe:
    """How a worker begins: ComfyUI's folder, what gives (MODEL, CLIP, VAE), and the job.

    `threads` are those that it computes with on the CPU; 0: as many as torch takes.
    """

    comfyui: str
    load: Callable[[], tuple[Any, Any, Any]]
    job: AuditJob
    threads: int = 0


def begin(recipe: Recipe) -> dict:
    """Load the model; what this worker holds, which must be what the others hold."""
    enter_comfyui(recipe.comfyui)
    import comfyui_version
    import torch

    from .run import Maker

    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    _maker[:] = [Maker(*recipe.load(), recipe.job, torch.get_num_threads())]
    _maker[0].opinions()  # its detectors too are held to those that the job began with
    versions = {"ComfyUI": comfyui_version.__version__, "torch": torch.__version__}
    return _maker[0].holds() | versions


def make(task: Task) -> Made:
    """What came of a prompt, but its preview."""
    return _maker[0].made(*task)._replace(shown=None)
