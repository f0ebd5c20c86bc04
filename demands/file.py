"""The file of settings, `modular-safety-lora.json` in ComfyUI's user folder; without it none hold.

A file that can't be read as settings, or that lies elsewhere while there is none here, stops every
safety LoRA from loading: a mistake must not switch a policy off.
"""

import os
import re
from pathlib import Path

from pydantic import ValidationError

from ..modules.errors import SafetyError
from ..storage.checked import fault_of, parsed
from ..storage.faults import told
from .fields import Operator

FILE = "modular-safety-lora.json"
# names that somebody meant to be FILE: another dash or case, or with an ending that Windows hides
_ALIKE = re.compile(r"modular[-_ ]?safety[-_ ]?lora(\.json){0,2}(\.txt)?", re.IGNORECASE)


class SettingsError(SafetyError):
    """The operator's settings file is not as it must be; nothing loads until it is."""


def read_settings(path: Path) -> Operator:
    """The settings as a file says now. Raises SettingsError for one that says anything else."""
    try:
        return settings_in(path)
    except (OSError, ValueError) as error:
        said = fault_of(error, Operator) if isinstance(error, ValidationError) else told(error)
        said = said.rstrip(".")
        raise SettingsError(
            f"{path}: {said}. No safety LoRA loads until this file is corrected or removed."
        ) from error


def settings_in(path: Path) -> Operator:
    """The same, with the error as it is: OSError, ValueError, or all that pydantic found."""
    text = _text(path)
    parsed(text)
    found = Operator.model_validate_json(text)
    found._folder = path.parent
    found.private  # noqa: B018  a file that can't be read is a mistake in the settings
    found.secret  # noqa: B018
    return found


def misplaced(path: Path) -> list[Path]:
    """Files that somebody meant to be the settings, and that nothing reads.

    They lie in one user's folder, such as `user/default`, or in ComfyUI's own, or have a name that
    is only like the right one.
    """
    users = path.parent
    there = sorted(users.iterdir()) if users.exists() else []
    found = [each / path.name for each in [*there, users.parent]]
    if path.name == FILE:
        found += [each for each in there if _ALIKE.fullmatch(each.name) and each.name != FILE]
    return [each for each in found if os.path.lexists(each) and not _same(each, path)]


def _same(one: Path, other: Path) -> bool:
    """Whether two names are one file, as on a disk that knows no case."""
    return one.exists() and other.exists() and one.samefile(other)


def _text(path: Path) -> str:
    """What the file holds: `{}` where there is none, and none where somebody meant it to be."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        if os.path.lexists(path):
            raise ValueError("it is a link to a missing file") from None
    for each in misplaced(path):
        raise ValueError(
            f"it is missing, and {each} is read by nothing; move that one here, or remove it"
        )
    return "{}"
