"""The detectors, by name: NudeNet, those of a settings file, and those that Python registers."""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ...options.registry import by_name, marked
from ...storage.checked import fault_of, parsed
from ...storage.faults import told
from ..classes import CLASSES, NUDENET
from . import yolo
from .interface import Detector, DetectorEntry, Kind
from .runtime import (
    INSTALL_HINT,
    NO_FILE,
    NO_PACKAGE,
    PACKAGES,
    DetectorError,
    DetectorMissing,
    OnnxNetwork,
)

# the files here that are no kind of detector
HELPERS = ("content", "interface", "batches", "registry", "runtime")
SHIPPED = Path(__file__).with_name("shipped.json")  # described as in a settings file
# the kinds that a settings file can describe
_KINDS: dict[str, type[Kind]] = by_name(
    (kind.kind, file, kind) for file, kind in marked(__package__, "KIND", HELPERS, __file__)
)


@dataclass(frozen=True)
class _Known:
    classes: tuple[str, ...]
    make: Callable[[str, int], Detector]  # provider, threads
    entry: DetectorEntry | None = None  # of the settings
    needs: DetectorEntry | None = None  # what ships


@dataclass(frozen=True)
class _Made:
    asked: tuple[str, int]  # provider, threads
    detector: Detector

    def is_current(self) -> bool:
        """Whether its file is as it was loaded; what Python code registered has none."""
        network = getattr(self.detector, "network", None)
        return not isinstance(network, OnnxNetwork) or network.content.is_current()


_known: dict[str, _Known] = {}
_ours: set[str] = set()  # names that no settings file can give to another
# the last that was asked for of each name: sessions hold memory of the GPU
_made: dict[str, _Made] = {}
_lock = threading.RLock()


def register(
    name: str,
    classes: Sequence[str],
    make: Callable[[str, int], Detector],
    entry: DetectorEntry | None = None,
    *,
    needs: DetectorEntry | None = None,
) -> None:
    """Make a detector known; `make(provider, threads)` is called once for each provider in use."""
    with _lock:
        _known[name] = _Known(tuple(classes), make, entry, needs)
        _made.pop(name, None)


def load_entries(path: Path) -> dict[str, Mapping[str, Any]]:
    """The detectors of a file, a name and an entry for each. Raises DetectorError."""
    try:
        found = parsed(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DetectorError(
            f"{path}: the file of detectors can't be read ({told(error)})."
        ) from error
    if not isinstance(found, dict):
        raise DetectorError(f"{path}: detectors must be an object, a name and an entry for each.")
    return found


def register_entries(
    entries: Mapping[str, Mapping[str, Any]], folder: Path, file: str = "the settings"
) -> None:
    """Make known the detectors of a `file`; what they name relatively lies below `folder`.

    Those of settings before, which are not among them, let go of their memory. Raises
    DetectorError.
    """
    with _lock:
        for name in [
            name for name in _made if _known[name].entry is not None and name not in entries
        ]:
            del _made[name]
    for name, entry in entries.items():
        kind, described = _checked(name, entry, file)
        described = _placed(described, folder)
        if name in _known and _known[name].entry == described:
            continue
        register(name, described.classes, _maker(name, kind, described), described)


def classes_of(name: str) -> tuple[str, ...]:
    """The classes of a detector, which is not loaded for it."""
    return _get(name).classes


def check_there(name: str) -> None:
    """Raise for a detector whose file or package is missing, without loading it.

    DetectorError for the file, DetectorMissing for a package.
    """
    known = _get(name)
    entry = known.entry or known.needs
    if entry is not None and not Path(file := _found(name, entry).file).is_file():
        raise DetectorError(NO_FILE.format(file=file))
    if entry is None and name != NUDENET:
        return  # registered in Python: nobody knows what it needs
    for package in (*PACKAGES, *(["nudenet"] if name == NUDENET else [])):
        if find_spec(package) is None:
            raise DetectorMissing(INSTALL_HINT.format(missing=package))


def find(name: str = NUDENET, provider: str = "auto", threads: int = 0) -> Detector:
    """The detector of this name; one is shared by all who ask.

    Another one is made when its file was replaced, or another provider or number of threads is
    asked for; whoever holds the one before goes on with it. Raises DetectorError, DetectorMissing.
    """
    with _lock:
        known, asked = _get(name), (provider, threads)
        if name in _made and not (_made[name].asked == asked and _made[name].is_current()):
            del _made[name]
        if name not in _made:
            _made[name] = _Made(asked, known.make(provider, threads))
        return _made[name].detector


def _get(name: str) -> _Known:
    if name not in _known:
        raise DetectorError(f"There is no detector {name!r}; there are {', '.join(_known)}.")
    return _known[name]


def _placed(entry: DetectorEntry, folder: Path) -> DetectorEntry:
    """An entry whose file, if it is relative, lies below a folder; not one of a package."""
    return entry if entry.package else _below(entry, folder)


def _below(entry: DetectorEntry, folder: Path) -> DetectorEntry:
    return entry.model_copy(update={"file": str(folder / entry.file)})


def _found(name: str, entry: DetectorEntry) -> DetectorEntry:
    """An entry with the place of its file, which a package may have. Raises DetectorMissing."""
    if not entry.package:
        return entry
    spec = find_spec(entry.package)
    if spec is None or spec.origin is None:
        way_out = (
            f"Run `python install.py --with {name}` in the pack's folder with ComfyUI's Python."
            if name in _ours
            else "Install it with ComfyUI's Python."
        )
        raise DetectorMissing(NO_PACKAGE.format(name=name, package=entry.package, way_out=way_out))
    return _below(entry, Path(spec.origin).parent)


def _maker(name: str, kind: type[Kind], entry: DetectorEntry) -> Callable[[str, int], Detector]:
    stamp = Path(entry.file).name
    return lambda provider, threads: kind(name, stamp, _found(name, entry), provider, threads)


def _checked(name: str, entry: Mapping[str, Any], file: str) -> tuple[type[Kind], DetectorEntry]:
    """The kind of a settings entry, and what it says."""

    def wrong(reason: str) -> DetectorError:
        return DetectorError(f"The detector {name!r} in {file}: {reason}.")

    if name in _ours:
        raise wrong("this name is taken")
    if not isinstance(entry, Mapping) or entry.get("kind") not in _KINDS:
        raise wrong(f"it needs a `kind`, one of {', '.join(sorted(_KINDS))}")
    kind = _KINDS[entry["kind"]]
    said = {key: value for key, value in entry.items() if key != "kind"}
    try:
        return kind, kind.described_by.model_validate_json(json.dumps(said))
    except ValidationError as error:
        raise wrong(fault_of(error, kind.described_by)) from error


def _nudenet(provider: str, threads: int) -> Detector:
    try:
        import nudenet
    except ImportError as error:
        raise DetectorMissing(INSTALL_HINT.format(missing=error.name or error)) from error
    file = Path(nudenet.__file__).with_name("320n.onnx")
    entry = yolo.YoloEntry(file=str(file), classes=CLASSES)
    made = yolo.Yolo(NUDENET, version("nudenet"), entry, provider, threads)
    made.identity["package"] = version("nudenet")
    return made


def _shipped() -> None:
    """Make known what ships; settings before or after it don't let go of it."""
    for name, entry in load_entries(SHIPPED).items():
        kind, described = _checked(name, entry, SHIPPED.name)
        described = _placed(described, SHIPPED.parent)
        register(name, described.classes, _maker(name, kind, described), needs=described)
    _ours.update(_known)


register(NUDENET, CLASSES, _nudenet)
_shipped()
