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

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import folder_paths
from pydantic import AfterValidator, BeforeValidator, ValidationError, model_validator

from ..modules.errors import SafetyError
from ..modules.files import Module
from ..modules.signing import check_key, check_trusted
from ..storage.checked import Checked, fault_of

FILE = "modular-safety-lora.json"
# lists of seals or digests, which need require_lock
DIGESTS = {"allowed_safety": "seal", "allowed_bases": "digest"}


class SettingsError(SafetyError):
    """The operator's settings file is not as it must be; nothing loads until it is."""


def _key(text: str) -> str:
    check_key(text)
    return text


def _presets(found: object) -> object:
    if not isinstance(found, (dict, str)):
        raise ValueError("audit_presets must be an object, or the name of a file with one")
    return found


class Operator(Checked):
    """What the operator of this ComfyUI demands; by default nothing."""

    trusted_keys: tuple[Annotated[str, AfterValidator(_key)], ...] = ()
    require_lock: bool = False
    allowed_safety: tuple[str, ...] = ()
    allowed_bases: tuple[str, ...] = ()
    detectors: dict[str, dict] = {}
    audit_presets: Annotated[dict[str, dict] | str, BeforeValidator(_presets)] = {}
    audit_provider: str = "auto"

    @model_validator(mode="after")
    def _digests(self):
        for name, what in DIGESTS.items():
            for digest in getattr(self, name):
                if not re.fullmatch("[0-9a-f]{64}", digest):
                    raise ValueError(
                        f"{digest!r} in {name} is no {what}:"
                        " it must be 64 digits, 0 to 9 and a to f"
                    )
            if getattr(self, name) and not self.require_lock:
                raise ValueError(f"{name} needs require_lock to be true")
        return self


def operator() -> Operator:
    """The settings as the file says now. Raises SettingsError for one that says anything else."""
    path = Path(folder_paths.get_user_directory(), FILE)
    if not path.exists():
        return Operator()
    try:
        return Operator.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        said = fault_of(error, Operator) if isinstance(error, ValidationError) else error
        raise SettingsError(
            f"{path}: {said}. No safety module loads until this file is mended or removed."
        ) from error


def check_operator(safety: Sequence[Module]) -> None:
    """Raise unless the operator's settings allow these safety modules."""
    check_trusted(safety, operator().trusted_keys)


def demands() -> str:
    """The settings as a text: when they change, what was loaded under others loads anew."""
    try:
        return repr(operator())
    except SettingsError as error:
        return str(error)
