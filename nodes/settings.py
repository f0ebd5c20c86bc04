"""The operator's settings, as `modular-safety-lora.json` in ComfyUI's user folder has them now.

`demands/fields.py` has every setting. Those that are read when ComfyUI starts hold until it starts
again: whoever changes one is told so in the log, at the next use.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import folder_paths

from ..demands import file as files
from ..demands.fields import Operator, starts_with
from ..demands.file import FILE, SettingsError, read_settings
from ..modules.errors import NotAllowed
from ..modules.files import LoraFile
from ..modules.seal import short
from ..modules.signing import check_trusted

__all__ = ["FILE", "Operator", "SettingsError"]
logger = logging.getLogger(__name__)


class _Started:
    """The settings that ComfyUI started with, and which changes since were told."""

    operator: Operator | None = None
    told: frozenset[str] = frozenset()


def settings_file() -> Path:
    """Where the settings are read from."""
    return Path(folder_paths.get_user_directory(), FILE)


def operator() -> Operator:
    """The settings as the file says now. Raises SettingsError for one that says anything else."""
    found = read_settings(settings_file())
    _tell_restart(found)
    return found


def started_with(found: Operator | None) -> None:
    """From now on a change of what is read at the start is told; None ends it."""
    _Started.operator, _Started.told = found, frozenset()


def _tell_restart(now: Operator) -> None:
    """Say once which settings differ from those that hold."""
    before = _Started.operator
    if before is None:
        return
    changed = frozenset(
        name
        for name in Operator.model_fields
        if starts_with(name) and getattr(now, name) != getattr(before, name)
    )
    if changed - _Started.told:
        logger.error(
            "%s changed: %s. ComfyUI reads this when it starts, and holds what it read then."
            " Restart it.",
            settings_file(),
            ", ".join(sorted(changed)),
        )
    _Started.told = changed


def misplaced() -> list[Path]:
    """Settings where nothing reads them, such as in the folder of one user."""
    return files.misplaced(settings_file())


def check_operator(safety: Sequence[LoraFile]) -> None:
    """Raise unless the operator's settings allow these safety LoRAs."""
    check_trusted(safety, operator().trusted_keys)


def check_tasks(tasks: Sequence[LoraFile], allowed: Sequence[str]) -> None:
    """Raise NotAllowed for a task LoRA that is not on a list; an empty list has all."""
    for module in tasks if allowed else ():
        if module.sha256 not in allowed:
            raise NotAllowed(
                f"{module.name} is not on this ComfyUI's list of allowed task LoRAs (allowed_tasks"
                f" in {FILE}). Load one that is, or ask the operator to add this one; its digest"
                f" begins with {short(module.sha256)}."
            )


def demands() -> str:
    """The settings as a text: when they change, what was loaded under others loads again."""
    try:
        return repr(operator())
    except SettingsError as error:
        return str(error)


def private_demands() -> str:
    """A digest of the operator's own prompts: when they change, what passed is probed again."""
    try:
        return operator().private.sha256
    except SettingsError as error:
        return str(error)
