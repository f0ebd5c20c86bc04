"""What the tests of the probe share: a small safety module with prompts of every kind."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from concepts import PROMPTS, prompted
from modular_safety_lora.function import kept
from modular_safety_lora.lab import assets
from modular_safety_lora.merge.merge import Task, merge
from modular_safety_lora.modules.files import load_task
from safetensors.torch import load_file

HELD_OUT = ["bare skin"]
SECRET = ["a secret prompt", "another secret prompt"]


@contextlib.contextmanager
def kept_in(place: Path) -> Iterator[None]:
    """What is measured is kept in one place for a file's tests, which have a user folder each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept, "folder", lambda: place / "function")
        yield


def safety_of(models, *held_out: str):
    """The seeded safety module with prompts, and those that are held out."""
    module = prompted(load_file(models / "loras" / assets.SAFETY), PROMPTS)
    about = {"msl.held_out": json.dumps(held_out)} if held_out else {}
    return dataclasses.replace(
        module, metadata=module.metadata | about, sha256=f"{module.sha256}-{held_out}"
    )


def undoing(safety, share: float = 1.0):
    """A task that takes a share of the safety module back, its own tensors at the other sign."""
    module = dataclasses.replace(safety, name="undoing.safetensors", role="task", metadata={})
    return Task(module, -share, 0.0)


def style(models, strength: float = 0.1):
    """A harmless task that leaves the text encoder alone."""
    return Task(load_task(models / "loras" / assets.SUBJECT, assets.SUBJECT), strength, strength)


def merged(checkpoint, safety, *tasks, **more):
    model, clip = checkpoint
    return merge(model, [safety], list(tasks), clip, **more).model
