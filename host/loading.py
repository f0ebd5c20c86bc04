"""Of which file a model was read, noted while ComfyUI's own loaders read it.

A file can be replaced between its loader and whoever asks which base a model is. Nothing in the
host says when a model was read, so this is asked of the loaders themselves, and only where an
operator's policy needs to know.
"""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import comfy.sd
from comfy.model_patcher import ModelPatcher

LOADERS = ("load_checkpoint_guess_config", "load_diffusion_model")
# A file is another when it lies elsewhere, or its size or times changed. Nobody but the system's
# administrator sets the last of these, where the system has it.
Version = tuple[int, ...]
Note = Callable[[Path, Version], object]
_noted: WeakKeyDictionary[object, object] = WeakKeyDictionary()  # by network
_watching: list[object] = []


def version(path: Path) -> Version:
    stat = Path(path).stat()
    return (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def watch(note: Note) -> Callable[[], None]:
    """Keep from now on what `note` says of each file that the host's loaders made a model of.

    It is given the version that the file had before. Returns what ends it.
    """
    originals = {name: getattr(comfy.sd, name) for name in LOADERS}
    for name, load in originals.items():
        setattr(comfy.sd, name, _noting(load, note))
    _watching.append(originals)

    def ended() -> None:
        _watching.remove(originals)
        for name, load in originals.items():
            setattr(comfy.sd, name, load)

    return ended


def is_watched(model: ModelPatcher) -> bool:
    """Whether somebody watches now, or did when a MODEL was read."""
    return bool(_watching) or model.model in _noted


def noted(model: ModelPatcher) -> object | None:
    """What was noted of a MODEL's file; None when it was read while nobody watched."""
    return _noted.get(model.model)


def _noting(load: Callable[..., Any], note: Note) -> Callable[..., Any]:
    @functools.wraps(load)
    def loader(*args: Any, **kwargs: Any) -> Any:
        path = Path(inspect.signature(load).bind(*args, **kwargs).args[0])
        before = version(path)
        made = load(*args, **kwargs)
        model = made[0] if isinstance(made, tuple) else made
        if model is not None:
            _noted[model.model] = note(path, before)
        return made

    return loader
