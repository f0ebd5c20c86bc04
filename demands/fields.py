"""The operator's settings: a field is a row, with its check and its words.

From it come the check of the file, `settings explain`, and the table in docs/threat-model.md. A new
setting is one row here and its use.
"""

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, model_validator

from ..audit.detectors.runtime import SHORT
from ..evidence.settings import EvidenceLog, Webhook
from ..function.limits import DEFAULT, Limits
from ..gates.wanted import OFF, Wanted
from ..host.prompts import read_lines
from ..modules.concepts import texts_of
from ..modules.paths import leads_out
from ..modules.signing import check_key
from ..provenance.certificates import Credentials, from_files
from ..provenance.settings import Provenance
from ..storage.checked import Checked

# lists of seals or digests, which need require_lock
DIGESTS = {"allowed_safety": "seal", "allowed_bases": "digest", "allowed_tasks": "digest"}
AT_START = "Read when ComfyUI starts."


def setting(default: Any, words: str, example: Any, at_start: bool = False, **range_: Any) -> Any:
    """A row: what it demands, as it is written, and whether only a restart changes it."""
    more: Any = {"at_start": at_start}
    return Field(default, description=words, examples=[example], json_schema_extra=more, **range_)


def starts_with(name: str) -> bool:
    """Whether a setting is read when ComfyUI starts; others are read at every use."""
    extra = Operator.model_fields[name].json_schema_extra
    return isinstance(extra, dict) and extra.get("at_start") is True


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


def _metrics(name: str) -> str:
    if name and not name.endswith(".prom"):
        raise ValueError(f"metrics_file is {name!r}; a node exporter reads files ending in .prom")
    return name


def _switch(found: object) -> object:
    """`true` is a log as it is by default, `false` none."""
    return EvidenceLog() if found is True else None if found is False else found


class Function(Checked):
    """The limits of retained safety in function (function/limits.py)."""

    stop: float = DEFAULT.stop
    look: float = DEFAULT.look

    @model_validator(mode="after")
    def _ordered(self) -> "Function":
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
    """What the operator of this ComfyUI demands; by default nothing. Files lie below `_folder`."""

    _folder: Path = PrivateAttr(default=Path())

    trusted_keys: tuple[Annotated[str, AfterValidator(_key)], ...] = setting(
        (), "Only safety LoRAs that one of these Ed25519 keys signed.", ["<public key in base64>"]
    )
    require_lock: bool = setting(
        False,
        "Every model that samples needs an intact lock, at every step, even under `report`.",
        True,
        at_start=True,
    )
    allowed_safety: tuple[str, ...] = setting(
        (), "Only safety LoRAs with these seals (`inspect` shows them).", ["<seal>"], at_start=True
    )
    allowed_bases: tuple[str, ...] = setting(
        (),
        "Only bases with these digests, and no safety LoRA made for another one. Another precision"
        " is another base.",
        ["<base_sha256>"],
        at_start=True,
    )
    allowed_tasks: tuple[str, ...] = setting(
        (),
        "Only task LoRAs with these digests (`inspect` shows them), and nothing else on the model.",
        ["<digest>"],
        at_start=True,
    )
    require_probe: bool = setting(
        False,
        "Only merges that passed Probe Safety here, under these settings.",
        True,
        at_start=True,
    )
    private_prompts: str = setting(
        "", "The probe's own prompts: a file, one on each line; never shown.", "<file>"
    )
    private_seed: int = setting(0, "The probe's seed.", 12345, ge=0, le=2**62)
    retained_in_function: Function = setting(
        Function(),
        "The limits of retained safety in function.",
        {"stop": DEFAULT.stop, "look": DEFAULT.look},
    )
    require_audit: Wanted = setting(
        OFF,
        "Nothing leaves that was not looked at (docs/hosting.md).",
        {"gates": ["decode", "door"], "preset": "strict", "flagged": "withhold", "inputs": False},
        at_start=True,
    )
    evidence_log: Annotated[EvidenceLog | None, BeforeValidator(_switch)] = setting(
        None,
        "A line for each prompt, sampling, merge, verdict and refusal. `required`: what can't be"
        " recorded does not happen. `addresses`: of the `connection`, or as a `proxy` says.",
        {
            "prompts": False,
            "addresses": "none",
            "max_mb": 64,
            "max_days": 90,
            "required": True,
        },
        at_start=True,
    )
    metrics_file: Annotated[str, AfterValidator(_metrics)] = setting(
        "",
        "The log's figures for Prometheus: a file in a node exporter's folder.",
        "<file>.prom",
        at_start=True,
    )
    webhook: Webhook | None = setting(
        None,
        "An address that is told of refusals and flagged pictures, signed with the file's secret.",
        {"url": "https://<host>/<path>", "secret_file": "<file>"},
        at_start=True,
    )
    provenance: Provenance | None = setting(
        None,
        "Who signs what Save Image with Provenance saves: a certificate and its key, PEM.",
        {"certificate": "<file>", "key": "<file>"},
    )
    detectors: dict[str, dict[str, Any]] = setting(
        {}, "Your own detectors (docs/detectors.md).", {"<name>": {"kind": "yolo"}}
    )
    audit_presets: Annotated[dict[str, dict[str, Any]] | str, BeforeValidator(_presets)] = setting(
        {}, "Your own presets, or a file with them.", {"<name>": {"thresholds": {"<class>": 0.5}}}
    )
    audit_provider: Annotated[str, AfterValidator(_provider)] = setting(
        "auto", "What computes the audits.", "cpu"
    )

    @model_validator(mode="after")
    def _digests(self) -> "Operator":
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
        for name in ("metrics_file", "webhook"):
            if getattr(self, name) and not self.evidence_log:
                raise ValueError(f"{name} needs evidence_log: it is made of the log's lines")
        return self

    @property
    def folder(self) -> Path:
        """Where relative files lie: the user folder."""
        return self._folder

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
        file = self._below("private_prompts", self.private_prompts)
        return Private(tuple(texts_of(read_lines(file))))

    @property
    def secret(self) -> bytes:
        """The webhook's secret; empty without one. Raises ValueError as `private` does."""
        if self.webhook is None:
            return b""
        self._below("webhook.secret_file", self.webhook.secret_file)
        return self.webhook.secret(self._folder)

    @property
    def credentials(self) -> Credentials | None:
        """What pictures are signed with, as its files have it now; None without.

        Raises ValueError for a file that lies elsewhere, SigningError for one that can't be used,
        NotInstalled.
        """
        if self.provenance is None:
            return None
        names = {"certificate": self.provenance.certificate, "key": self.provenance.key}
        files = [self._below(f"provenance.{name}", file) for name, file in names.items()]
        return from_files(*files)

    def _below(self, name: str, file: str) -> Path:
        if leads_out(file):
            raise ValueError(f"{name} is {file!r}; it must lie below the user folder")
        return self._folder / file
