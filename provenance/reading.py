"""What a picture's file says of its audit, and what that is worth."""

from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from ..audit.about import ROLES, STATES
from ..audit.pictures import Unreadable, picture_in, reason
from ..options.words import amount
from ..storage.names import written
from .certificates import NotInstalled
from .claims import KINDS, Claim, claim_in
from .record import KEY, Audit, Look, Model, Record, RecordError, pixels_sha256, read

UNSIGNED = (
    "no: whoever had this file could write it, or copy it from another picture of the same pixels"
)
NO_VERDICT = "no audit wrote a verdict into it"
OTHER = "the verdict in it is not of these pixels: they were changed, or it was copied"
PARTLY = "some of its pictures were not looked at as they are here"
LOSSY = (
    "nothing ties the verdict to these pixels: the file is lossy or has 16 bits, and no valid claim"
    " holds it"
)
PIXELS = "exact: these are the pixels that were looked at"
CLAIMED = "by the signed claim"
Found = list[tuple[Audit, Look]]


def inspect(path: Path, trusted: str = "") -> dict[str, Any]:
    """What is in a picture's file. `fault` is None only where its own verdict says not flagged.

    `trusted` are certificates of issuers of C2PA claims, PEM.
    """
    found: dict[str, Any] = {"path": written(path), "state": "unreadable", "fault": None}
    try:
        content = path.read_bytes()
        kind, pixels, text = _read(content)
        claim, missing = _claim(content, kind, trusted)
        record = read(text) if text else None
    except (OSError, Unreadable, RecordError) as error:
        return {**found, "fault": reason(error) if isinstance(error, OSError) else str(error)}
    signed = _signed(claim, missing)
    if claim is not None and not claim.is_valid:
        broken = f"its C2PA claim is not valid: {', '.join(claim.faults)}"
        return {**found, "state": "picture, its claim is broken", "fault": broken, **signed}
    claimed = None if claim is None else claim.record
    record = claimed or record
    if record is None:
        return {**found, "state": "picture without a verdict", "fault": NO_VERDICT, **signed}
    own, tied, fault = _own(record, pixels, record is claimed)
    return {**found, **_verdict(own, fault), "tied": tied, **_told(own, record), **signed}


def _read(content: bytes) -> tuple[str, list[str] | None, str]:
    """A file's kind, the digests of its frames (None: they are not as they were), its text."""
    opened = picture_in(content, frames=10**6)
    if opened is None:
        raise Unreadable("not a picture that can be read here")
    described, frames = opened
    digests = [pixels_sha256(each) for _, each in frames]
    with Image.open(BytesIO(content)) as image:
        image.seek(described.frames - 1)  # what stands behind the frames is read with the last
        image.load()
        texts = _texts(image)
    if len(texts) > 1:
        raise Unreadable(f"it holds {len(texts)} verdicts; nobody can tell which is its own")
    deep = described.format == "PNG" and content[24] > 8  # 16 bits, which are rounded
    exact = described.format == "PNG" and not deep
    return described.format, digests if exact or _lossless(content) else None, "".join(texts)


def _lossless(content: bytes) -> bool:
    """Whether it is a WebP whose frames are all lossless."""
    if content[:4] != b"RIFF" or content[8:12] != b"WEBP":
        return False
    return b"VP8L" in content and b"VP8 " not in content


def _texts(image: Image.Image) -> list[str]:
    """The texts that ComfyUI's save nodes write under our key: PNG, animated PNG, EXIF."""
    found = [image.info[KEY]] if isinstance(image.info.get(KEY), str) else []
    start = f"{KEY}\0".encode()
    for _, data, *_ in getattr(image, "private_chunks", ()):
        if data.startswith(start):
            found.append(data.removeprefix(start).decode("utf-8", "replace"))
    for value in image.getexif().values():
        if isinstance(value, str) and value.startswith(f"{KEY}:"):
            found.append(value.removeprefix(f"{KEY}:").rstrip("\0"))
    return found


def _claim(content: bytes, kind: str, trusted: str) -> tuple[Claim | None, str]:
    """The claim, and why nobody can tell whether there is one."""
    if kind not in KINDS:
        return None, ""
    try:
        return claim_in(content, kind, trusted), ""
    except NotInstalled as error:
        return None, str(error) if b"c2pa" in content else ""


def _own(
    record: Record, pixels: list[str] | None, is_claimed: bool
) -> tuple[Found, str, str | None]:
    """The looks at this file's pictures, what ties them to it, and what is wrong with that.

    What signs a file anew, such as an editor, vouches for no text that it found in it: a record
    `is_claimed` where the claim itself holds it.
    """
    everything = [(audit, look) for audit in record.audits for look in audit.pictures]
    if pixels is not None:
        each = [record.of(digest) for digest in pixels]
        if not any(each) and everything:
            return everything, "not at all", OTHER
        missing = None if all(each) else PARTLY if any(each) else NO_VERDICT
        return [one for looks in each for one in looks], PIXELS, missing
    if not everything:
        return [], "not at all", NO_VERDICT
    if not is_claimed:
        return everything, "not at all", LOSSY
    return everything, CLAIMED, PARTLY if record.not_looked_at else None


def _verdict(own: Found, fault: str | None) -> dict[str, Any]:
    if fault is not None:
        return {"state": "picture, no verdict of its own", "fault": fault}
    flagged = sorted({look.done for _, look in own if look.flagged})
    if flagged:
        return {"state": "picture, flagged", "fault": f"an audit flagged it ({', '.join(flagged)})"}
    return {"state": "picture, not flagged", "fault": None}


def _told(own: Found, record: Record) -> dict[str, Any]:
    """What audits and merges said, for people."""
    seen: Counter[str] = Counter()
    for _, look in own:
        seen.update(look.counts)
    audits = dict.fromkeys(map(_rules, (audit for audit, _ in own)))
    flagged = sum(look.flagged for _, look in own)
    return {
        "audit": "; ".join(audits) or None,
        "flagged": f"{flagged} of {amount(len(own), 'look')}" if own else None,
        "detections": ", ".join(f"{name} {n}" for name, n in sorted(seen.items())) or None,
        "made_by": "; ".join(_made(each) for each in record.models) or None,
        "safety_lora": STATES[record.safety_lora],
    }


def _rules(audit: Audit) -> str:
    """By what was counted: a preset's name alone does not tell it."""
    counted = [f"{name} from {score:g}" for name, score in audit.thresholds.items()]
    counted += [f"size from {audit.min_size:g}"] * bool(audit.min_size)
    said = f"preset {audit.preset} ({', '.join(counted)})"
    return f"{audit.by}, {said}, detector {audit.detector}"


def _made(model: Model) -> str:
    parts = [("checkpoint", model.base or "?", model.base_sha256)]
    parts += [(ROLES[each.role], each.name, each.sha256) for each in model.loras]
    if model.patched:
        parts.append((amount(model.patched, "weight"), "changed by something else", None))
    return ", ".join(f"{what} {name}" + f" ({sha})" * bool(sha) for what, name, sha in parts)


def _signed(claim: Claim | None, missing: str) -> dict[str, Any]:
    if missing:
        return {"signed": f"perhaps: {missing}"}
    if claim is None:
        return {"signed": UNSIGNED}
    if not claim.is_valid:
        return {"signed": f"broken, by {claim.signer}" if claim.signer else "broken"}
    worth = (
        "an issuer that you trust"
        if claim.is_trusted
        else "an unknown issuer: nothing changed since, but nobody vouches for who signed"
    )
    ai = " It says that a trained model made the picture." if claim.made_by_model else ""
    bare = " It holds no verdict." if claim.record is None else ""
    return {"signed": f"C2PA, by {claim.signer}; {worth}.{ai}{bare}"}
