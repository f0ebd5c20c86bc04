"""The operator's settings in a test: their file, the policy that holds them, and a loader."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import folder_paths
from modular_safety_lora.lab import assets
from modular_safety_lora.nodes import policy
from modular_safety_lora.nodes.load import LoadSafetyLora
from modular_safety_lora.nodes.settings import FILE


@contextlib.contextmanager
def own_settings(models: Path, folder: Path) -> Iterator[Callable]:
    """A user folder and a loras folder of the test's own; writes the settings."""
    before, user = folder_paths.folder_names_and_paths["loras"], folder_paths.get_user_directory()
    folder_paths.folder_names_and_paths["loras"] = ([str(folder), *before[0]], before[1])
    folder_paths.set_user_directory(str(folder / "user"))
    (folder / "user").mkdir()
    for name in ("signed", "unsigned"):
        (folder / f"{name}.safetensors").write_bytes(
            (models / "loras" / assets.SAFETY).read_bytes()
        )
    yield lambda content: (folder / "user" / FILE).write_text(
        content if isinstance(content, str) else json.dumps(content), encoding="utf-8"
    )
    folder_paths.folder_names_and_paths["loras"] = before
    folder_paths.set_user_directory(user)


@contextlib.contextmanager
def held_policy(write_settings: Callable) -> Iterator[Callable]:
    """Writes settings and holds their policy until the end."""
    taken_away = []

    def hold(content) -> None:
        write_settings(content)
        taken_away.append(policy.install())

    yield hold
    for each in reversed(taken_away):  # each puts back what it found
        each()


def load(name: str):
    """What Load Safety LoRA gives for a file of the test's own folder."""
    return LoadSafetyLora.execute(f"{name}.safetensors").args[0]
