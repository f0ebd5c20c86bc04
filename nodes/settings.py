"""The operator's settings: `modular-safety-lora.json` in ComfyUI's user folder. Without it nothing changes.

    {"trusted_keys": ["<Ed25519 public key in base64>", ...]}

A file that can't be read as this stops every safety module from loading: a typo must not switch a policy off.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import folder_paths

from ..modular.files import Module
from ..modular.signing import KeyFileError, check_key, check_trusted

FILE = "modular-safety-lora.json"


class SettingsError(ValueError):
    """The operator's settings file is not as it must be; nothing loads until it is."""


@dataclass(frozen=True)
class Operator:
    """What the operator of this ComfyUI demands; by default nothing."""

    trusted_keys: tuple[str, ...] = ()


def operator() -> Operator:
    """The settings as the file says now. Raises SettingsError for one that says anything else."""
    path = Path(folder_paths.get_user_directory(), FILE)
    if not path.exists():
        return Operator()
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or found.keys() - {"trusted_keys"}:
            raise SettingsError("it must be an object with trusted_keys, and nothing else")
        keys = found.get("trusted_keys", [])
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise SettingsError("trusted_keys must be a list of texts")
        for key in keys:
            check_key(key)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyFileError, SettingsError) as error:
        raise SettingsError(f"{path}: {error}. No safety module loads until this file is mended or removed.") from error
    return Operator(tuple(keys))


def check_operator(safety: Sequence[Module]) -> None:
    """Raise unless the operator's settings allow these safety modules."""
    check_trusted(safety, operator().trusted_keys)


def demands() -> str:
    """The settings as a text: when they change, what was loaded under others loads anew."""
    try:
        return repr(operator())
    except SettingsError as error:
        return str(error)
