"""C2PA: a signed claim in a picture's file (https://c2pa.org/specifications, version 2).

It says that a trained model made the picture, and holds its record as an assertion of our own. No
time-stamp authority is asked, and nothing is fetched: no revocation, no manifest that lies
elsewhere.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO
from typing import Any

import numpy as np

from ..audit.about import NONE
from .certificates import INSTALL, Credentials, NotInstalled, SigningError
from .record import Record, RecordError, read, record
from .saving import Saving, encoded

LABEL = "modular-safety-lora.verdict"
MADE_BY_MODEL = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
OFFLINE = {
    "builder": {"thumbnail": {"enabled": False}},
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
}
KINDS = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}  # by Pillow's names


@dataclass(frozen=True)
class Claim:
    """What a file's claim is worth: its signer, and the codes of what is wrong with it.

    `is_valid`: nothing changed since it was signed. `is_trusted`: its issuer is one that was named.
    """

    signer: str
    is_valid: bool
    is_trusted: bool
    made_by_model: bool
    record: Record | None
    faults: tuple[str, ...]


def check_installed() -> None:
    """Raise NotInstalled unless claims can be written and read here."""
    _library()


def sign(content: bytes, kind: str, told: Record, by: Credentials, host: str = "") -> bytes:
    """A picture's file with a claim; `kind` is Pillow's name of its format.

    It is read back before it is given. Raises SigningError, NotInstalled.
    """
    c2pa = _library()
    signed = BytesIO()
    try:
        with _context() as context:
            info = c2pa.C2paSignerInfo(by.algorithm, by.chain, by.key, None)
            with c2pa.Signer.from_info(info) as signer:
                builder = c2pa.Builder(_manifest(told, host), context)
                builder.sign(signer, KINDS[kind], BytesIO(content), signed)
    except c2pa.C2paError as error:
        raise SigningError(f"The picture can't be signed, and was not saved: {error}.") from error
    found = claim_in(signed.getvalue(), kind)
    if found is None or not found.is_valid or found.record != told:
        faults = ", ".join(found.faults) if found else "no claim"
        raise SigningError(f"What was signed does not read as valid, and was not saved: {faults}.")
    return signed.getvalue()


def try_out(by: Credentials) -> None:
    """Sign a picture that goes nowhere. Raises SigningError, NotInstalled."""
    nothing = encoded(np.zeros((1, 1, 3), np.uint8), Saving(), {})
    sign(nothing, Saving().kind, record((), (), NONE), by)


def claim_in(content: bytes, kind: str, trusted: str = "") -> Claim | None:
    """The claim in a picture's file; None where there is none.

    `trusted` are certificates of issuers, PEM. Raises NotInstalled.
    """
    c2pa = _library()
    try:
        with (
            _context(trusted) as context,
            c2pa.Reader(KINDS[kind], BytesIO(content), context=context) as reader,
        ):
            told = json.loads(reader.json())
            state = reader.get_validation_state()
    except c2pa.C2paError.ManifestNotFound:
        return None
    except c2pa.C2paError as error:
        return Claim("", False, False, False, None, (str(error),))
    manifest = told["manifests"][told["active_manifest"]]
    results = told.get("validation_results", {}).get("activeManifest", {})
    faults = [each["code"] for each in results.get("failure", [])]
    by = manifest.get("signature_info", {})
    record, fault = _record(manifest)
    return Claim(
        ", ".join(filter(None, (by.get("common_name"), by.get("issuer")))),
        state in ("Valid", "Trusted"),
        state == "Trusted",
        _is_made_by_model(manifest),
        record,
        (*faults, *fault),
    )


def _manifest(told: Record, host: str) -> dict[str, Any]:
    try:
        of_pack = {"version": version("modular-safety-lora")}
    except PackageNotFoundError:  # a node pack is a folder, not a package
        of_pack = {}
    agent = {"name": "ComfyUI", **({"version": host} if host else {})}
    made = {"action": "c2pa.created", "digitalSourceType": MADE_BY_MODEL, "softwareAgent": agent}
    return {
        "claim_generator_info": [{"name": "Modular Safety LoRA", **of_pack}],
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": [made]}},
            {"label": LABEL, "data": told.plain()},
        ],
    }


def _assertions(manifest: dict[str, Any], label: str) -> Iterator[Any]:
    for each in manifest.get("assertions", []):
        if each.get("label") == label:
            yield each.get("data")


def _record(manifest: dict[str, Any]) -> tuple[Record | None, list[str]]:
    try:
        found = [read(json.dumps(each)) for each in _assertions(manifest, LABEL)]
    except RecordError as error:
        return None, [str(error)]
    return (found[0], []) if len(found) == 1 else (None, [])


def _is_made_by_model(manifest: dict[str, Any]) -> bool:
    actions = [
        each for data in _assertions(manifest, "c2pa.actions.v2") for each in data["actions"]
    ]
    return any(each.get("digitalSourceType") == MADE_BY_MODEL for each in actions)


@contextmanager
def _context(trusted: str = "") -> Iterator[Any]:
    trust = {"trust": {"trust_anchors": trusted}} if trusted else {}
    with _library().Context.from_dict(OFFLINE | trust) as context:
        yield context


def _library() -> Any:
    try:
        import c2pa
    except (ImportError, OSError) as error:  # OSError: its library does not load here
        raise NotInstalled(f"C2PA needs c2pa-python ({error}): {INSTALL}.") from error
    return c2pa
