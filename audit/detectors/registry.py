"""The detectors, by name: NudeNet, those of a settings file, and those that Python registers."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from ..presets import CLASSES, NUDENET
from . import classifier, yolo
from .interface import Detector
from .runtime import INSTALL_HINT, DetectorError, DetectorMissing

_NUMBERS = {"size": (16, 4096), "floor": (0.0, 1.0), "overlap": (0.0, 1.0), "batch": (1, 1024)}
_CHOICES = {
    "fit": classifier.FITS,
    "layout": classifier.LAYOUTS,
    "channels": classifier.CHANNELS,
    "scores": classifier.SCORES,
}
_KINDS = {
    "yolo": (yolo.Yolo, {"size", "floor", "overlap", "batch"}),
    "classifier": (
        classifier.Classifier,
        {"size", "floor", "batch", "fit", "mean", "std", "layout", "channels", "scores"},
    ),
}

_ONNX = tuple(kind for kind, _ in _KINDS.values())


@dataclass(frozen=True)
class _Known:
    classes: tuple[str, ...]
    make: Callable[[str, int], Detector]  # provider, threads
    entry: Mapping | None = None


@dataclass(frozen=True)
class _Made:
    asked: tuple[str, int]  # provider, threads
    detector: Detector

    def is_current(self) -> bool:
        """Whether its file is as it was loaded; what Python code registered has none."""
        return not isinstance(self.detector, _ONNX) or self.detector.network.content.is_current()


_known: dict[str, _Known] = {}
# the last that was asked for of each name: sessions hold memory of the GPU
_made: dict[str, _Made] = {}
_lock = threading.RLock()


def register(
    name: str,
    classes: Sequence[str],
    make: Callable[[str, int], Detector],
    entry: Mapping | None = None,
) -> None:
    """Make a detector known; `make(provider, threads)` is called when it is used.

    It is called again for another provider.
    """
    with _lock:
        _known[name] = _Known(tuple(classes), make, entry)
        _made.pop(name, None)


def register_entries(entries: Mapping[str, Mapping], folder: Path) -> None:
    """Make known the detectors of a settings file; relative files lie below `folder`.

    Those of settings before, which are not among them, let go of their memory. Raises
    DetectorError.
    """
    with _lock:
        for name in [
            name for name in _made if _known[name].entry is not None and name not in entries
        ]:
            del _made[name]
    for name, entry in entries.items():
        kind, arguments = _checked(name, entry)
        arguments["file"] = folder / arguments["file"]
        if name in _known and _known[name].entry == arguments | {"kind": kind}:
            continue
        register(
            name, arguments["classes"], _maker(name, kind, arguments), arguments | {"kind": kind}
        )


def classes_of(name: str) -> tuple[str, ...]:
    """The classes of a detector, which is not loaded for it."""
    return _get(name).classes


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


def _maker(name: str, kind: str, arguments: dict) -> Callable[[str, int], Detector]:
    stamp = arguments["file"].name

    def make(provider: str, threads: int) -> Detector:
        return _KINDS[kind][0](name, stamp, **arguments, provider=provider, threads=threads)

    return make


def _checked(name: str, entry: Mapping) -> tuple[str, dict]:
    """(kind, arguments) of a settings entry."""

    def wrong(reason: str) -> DetectorError:
        return DetectorError(f"The detector {name!r} in the settings: {reason}.")

    if name == NUDENET:
        raise wrong("this name is taken")
    if not isinstance(entry, Mapping) or entry.get("kind") not in _KINDS:
        raise wrong(f"it needs a `kind`, {' or '.join(_KINDS)}")
    kind, arguments = entry["kind"], {key: value for key, value in entry.items() if key != "kind"}
    unknown = arguments.keys() - _KINDS[kind][1] - {"file", "classes"}
    if unknown:
        raise wrong(
            f"a {kind} has no {', '.join(sorted(unknown))}; it has file, classes,"
            f" {', '.join(sorted(_KINDS[kind][1]))}"
        )
    if not isinstance(arguments.get("file"), str):
        raise wrong("`file` must name the ONNX file")
    classes = arguments.get("classes")
    if (
        not isinstance(classes, list)
        or not classes
        or not all(isinstance(each, str) and each for each in classes)
    ):
        raise wrong("`classes` must list the names of its classes, in the order of its outputs")
    if len(set(classes)) != len(classes):
        raise wrong("`classes` names a class twice")
    for key, value in arguments.items():
        if key in _NUMBERS:
            low, high = _NUMBERS[key]
            whole = key in ("size", "batch")
            if (
                isinstance(value, bool)
                or not isinstance(value, int if whole else (int, float))
                or not low <= value <= high
            ):
                raise wrong(
                    f"`{key}` is {value!r}; it must be a {'whole ' if whole else ''}number from"
                    f" {low} to {high}"
                )
        elif key in _CHOICES and value not in _CHOICES[key]:
            raise wrong(f"`{key}` is {value!r}; it must be one of {', '.join(_CHOICES[key])}")
        elif key in ("mean", "std") and not (
            isinstance(value, list)
            and len(value) == 3
            and all(isinstance(each, (int, float)) for each in value)
        ):
            raise wrong(f"`{key}` must be three numbers")
    if 0 in arguments.get("std", [1]):
        raise wrong("`std` must not be 0")
    return kind, arguments


def _nudenet(provider: str, threads: int) -> Detector:
    try:
        import nudenet
    except ImportError as error:
        raise DetectorMissing(INSTALL_HINT.format(missing=error.name or error)) from error
    file = Path(nudenet.__file__).with_name("320n.onnx")
    made = yolo.Yolo(NUDENET, version("nudenet"), file, CLASSES, provider=provider, threads=threads)
    made.identity["package"] = version("nudenet")
    return made


register(NUDENET, CLASSES, _nudenet)
