"""The operator's settings: `modular-safety-lora.json` in ComfyUI's user folder.

Without it nothing changes.

    {
      "trusted_keys": ["<Ed25519 public key in base64>", ...],
      "require_lock": true,
      "allowed_safety": ["<seal of a safety LoRA>", ...],
      "allowed_bases": ["<base_sha256 of a merge report>", ...],
      "retained_in_function": {"stop": 0.5, "look": 0.85},
      "require_probe": true,
      "private_prompts": "<file with a prompt on each line>",
      "private_seed": 12345,
      "detectors": {
        "<name>": {"kind": "yolo" or "classifier", "file": "<ONNX file>", "classes": [...], ...},
        ...
      },
      "audit_presets": {"<name>": {"thresholds": {"<class>": 0.5, ...}, ...}, ...}
                       or "<file with such an object>",
      "audit_provider": "auto", "cpu", "cuda", ...
    }

All of them are optional; `docs/threat-model.md` and `docs/detectors.md` describe them, and relative
files lie below the user folder. `require_lock`, `require_probe`, `allowed_safety` and
`allowed_bases` are read when ComfyUI starts, the others at every use. A file that can't be read as
this, or that lies in a user's folder in place of that of all users, stops every safety LoRA from
loading: a mistake must not switch a policy off.
"""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import folder_paths
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from ..audit.detectors.runtime import SHORT
from ..function.limits import DEFAULT, Limits
from ..host.prompts import read_lines
from ..modules.concepts import texts_of
from ..modules.errors import SafetyError
from ..modules.files import LoraFile
from ..modules.paths import leads_out
from ..modules.signing import check_key, check_trusted
from ..storage.checked import Checked, fault_of, parsed
from ..storage.faults import told

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


def _provider(name: str) -> str:
    if name not in (known := ("auto", *SHORT)):
        raise ValueError(f"There is no provider {name!r}; there are {', '.join(known)}")
    return name


class Function(Checked):
    """The limits of retained safety in function (function/limits.py)."""

    stop: float = DEFAULT.stop
    look: float = DEFAULT.look

    @model_validator(mode="after")
    def _ordered(self):
        Limits(self.stop, self.look)
        return self


@dataclass(frozen=True)
class Private:
    """The operator's own prompts, that no module was trained against; nothing prints them."""

    prompts: tuple[str, ...] = field(default=(), repr=False)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(json.dumps(self.prompts).encode()).hexdigest()


class Operator(Checked):
    """What the operator of this ComfyUI demands; by default nothing."""

    trusted_keys: tuple[Annotated[str, AfterValidator(_key)], ...] = ()
    require_lock: bool = False
    allowed_safety: tuple[str, ...] = ()
    allowed_bases: tuple[str, ...] = ()
    retained_in_function: Function = Function()
    require_probe: bool = False
    private_prompts: str = ""
    private_seed: Annotated[int, Field(ge=0, le=2**62)] = 0
    detectors: dict[str, dict] = {}
    audit_presets: Annotated[dict[str, dict] | str, BeforeValidator(_presets)] = {}
    audit_provider: Annotated[str, AfterValidator(_provider)] = "auto"

    @model_validator(mode="after")
    def _digests(self):
        for name, what in DIGESTS.items():
            for digest in getattr(self, name):
                if not re.fullmatch("[0-9a-f]{64}", digest):
                    raise ValueError(
                        f"{digest!r} in {name} is not a {what}:"
                        " it must be 64 digits, 0 to 9 and a to f"
                    )
            if getattr(self, name) and not self.require_lock:
                raise ValueError(f"{name} needs require_lock to be true")
        if self.require_probe and not self.require_lock:
            raise ValueError("require_probe needs require_lock to be true")
        return self

    @property
    def limits(self) -> Limits:
        return Limits(self.retained_in_function.stop, self.retained_in_function.look)

    @property
    def private(self) -> Private:
        """The operator's own prompts, as their file has them now.

        Raises ValueError for a file that is not there, is empty, or lies elsewhere.
        """
        if not self.private_prompts:
            return Private()
        if leads_out(self.private_prompts):
            raise ValueError(
                f"private_prompts is {self.private_prompts!r}; it must lie below the user folder"
            )
        file = settings_file().parent / self.private_prompts
        return Private(tuple(texts_of(read_lines(file))))


def settings_file() -> Path:
    """Where the settings are read from."""
    return Path(folder_paths.get_user_directory(), FILE)


def operator() -> Operator:
    """The settings as the file says now. Raises SettingsError for one that says anything else."""
    path = settings_file()
    try:
        text = _text(path)
        parsed(text)
        found = Operator.model_validate_json(text)
        found.private  # noqa: B018  a file that can't be read is a mistake in the settings
        return found
    except (OSError, ValueError) as error:
        said = fault_of(error, Operator) if isinstance(error, ValidationError) else told(error)
        raise SettingsError(
            f"{path}: {said}. No safety LoRA loads until this file is corrected or removed."
        ) from error


def misplaced() -> list[Path]:
    """Settings in the folder of one user, such as `user/default`, where nothing reads them."""
    users = settings_file().parent
    folders = sorted(users.iterdir()) if users.exists() else []
    return [each / FILE for each in folders if os.path.lexists(each / FILE)]


def _text(path: Path) -> str:
    """What the file holds: `{}` where there is none, and none where somebody meant it to be."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        if os.path.lexists(path):
            raise ValueError("it is a link to a missing file") from None
    for each in misplaced():
        raise ValueError(
            f"it is missing, and {each} is read by nothing; move that one here, or remove it"
        )
    return "{}"


def check_operator(safety: Sequence[LoraFile]) -> None:
    """Raise unless the operator's settings allow these safety LoRAs."""
    check_trusted(safety, operator().trusted_keys)


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
