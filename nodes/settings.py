"""The operator's settings: `modular-safety-lora.json` in ComfyUI's user folder.

Without it nothing changes.

    {
      "trusted_keys": ["<Ed25519 public key in base64>", ...],
      "require_lock": true,
      "allowed_safety": ["<seal of a safety module>", ...],
      "allowed_bases": ["<base_sha256 of a merge report>", ...],
      "detectors": {
        "<name>": {"kind": "yolo" or "classifier", "file": "<ONNX file>", "classes": [...], ...},
        ...
      },
      "audit_presets": {"<name>": {"thresholds": {"<class>": 0.5, ...}, ...}, ...}
                       or "<file with such an object>",
      "audit_provider": "auto", "cpu", "cuda", ...
    }

All of them are optional; `docs/detectors.md` describes the last three, whose relative files lie
below the user folder. `require_lock`, `allowed_safety` and `allowed_bases` are read when ComfyUI
starts, the others at every use. A file that can't be read as this stops every safety module from
loading: a typo must not switch a policy off.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import folder_paths

from ..modules.errors import SafetyError
from ..modules.files import Module
from ..modules.signing import KeyFileError, check_key, check_trusted

FILE = "modular-safety-lora.json"
# lists of seals or digests, which need require_lock
DIGESTS = {"allowed_safety": "seal", "allowed_bases": "digest"}


class SettingsError(SafetyError):
    """The operator's settings file is not as it must be; nothing loads until it is."""


@dataclass(frozen=True)
class Operator:
    """What the operator of this ComfyUI demands; by default nothing."""

    trusted_keys: tuple[str, ...] = ()
    require_lock: bool = False
    allowed_safety: tuple[str, ...] = ()
    allowed_bases: tuple[str, ...] = ()
    detectors: Mapping[str, Mapping] = field(default_factory=dict)
    audit_presets: Mapping[str, Mapping] | str = field(default_factory=dict)
    audit_provider: str = "auto"


def operator() -> Operator:
    """The settings as the file says now. Raises SettingsError for one that says anything else."""
    path = Path(folder_paths.get_user_directory(), FILE)
    if not path.exists():
        return Operator()
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        known = {each.name for each in fields(Operator)}
        if not isinstance(found, dict) or found.keys() - known:
            raise SettingsError(
                f"it must be an object with {', '.join(sorted(known))}, and nothing else"
            )
        lists = {name: found.get(name, []) for name in ("trusted_keys", *DIGESTS)}
        for name, texts in lists.items():
            if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
                raise SettingsError(f"{name} must be a list of texts")
        for key in lists["trusted_keys"]:
            check_key(key)
        for name, what in DIGESTS.items():
            for digest in lists[name]:
                if not re.fullmatch("[0-9a-f]{64}", digest):
                    raise SettingsError(
                        f"{digest!r} in {name} is no {what}:"
                        " it must be 64 digits, 0 to 9 and a to f"
                    )
            if lists[name] and found.get("require_lock") is not True:
                raise SettingsError(f"{name} needs require_lock to be true")
        if not isinstance(found.get("require_lock", False), bool):
            raise SettingsError("require_lock must be true or false")
        for name, kinds in (
            ("detectors", dict),
            ("audit_presets", (dict, str)),
            ("audit_provider", str),
        ):
            if not isinstance(found.get(name, kinds() if kinds in (dict, str) else {}), kinds):
                raise SettingsError(f"{name} is {type(found[name]).__name__}, which it can't be")
    except (
        OSError,
        UnicodeDecodeError,
        json.JSONDecodeError,
        KeyFileError,
        SettingsError,
    ) as error:
        raise SettingsError(
            f"{path}: {error}. No safety module loads until this file is mended or removed."
        ) from error
    return Operator(**(found | {name: tuple(texts) for name, texts in lists.items()}))


def check_operator(safety: Sequence[Module]) -> None:
    """Raise unless the operator's settings allow these safety modules."""
    check_trusted(safety, operator().trusted_keys)


def demands() -> str:
    """The settings as a text: when they change, what was loaded under others loads anew."""
    try:
        return repr(operator())
    except SettingsError as error:
        return str(error)
