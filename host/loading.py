"""Which version of its file a model was read from, noted while ComfyUI's own loaders read it.

A file can be replaced between its loader and whoever asks which base a model is. Nothing in the
host says when a model was read, so this is asked of the loaders themselves, and only where an
operator's policy needs to know.
"""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from weakref import WeakKeyDictionary

import comfy.sd

LOADERS = ("load_checkpoint_guess_config", "load_diffusion_model")
# A file is another when it lies elsewhere, or its size or times changed. Nobody but the system's
# administrator sets the last of these, where the system has it.
Version = tuple[int, ...]
# by network: its file, and the version that was read; None when it changed meanwhile
_read: WeakKeyDictionary[object, tuple[Path, Version | None]] = WeakKeyDictionary()
_watching: list[object] = []


def version(path: Path) -> Version:
    stat = Path(path).stat()
    return (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def watch() -> Callable[[], None]:
    """Note from now on what the host's loaders read; returns what ends it.

    What was read before then has no known file.
    """
    originals = {name: getattr(comfy.sd, name) for name in LOADERS}
    for name, load in originals.items():
        setattr(comfy.sd, name, _noting(load))
    _watching.append(originals)

    def ended() -> None:
        _watching.remove(originals)
        for name, load in originals.items():
            setattr(comfy.sd, name, load)

    return ended


def file_of(model) -> tuple[Path, Version | None] | None:
    """The file that a MODEL was read from, and its version then.

    Where nobody watched, the file alone, as it is now; None when there is none.
    """
    if model.model in _read or _watching:
        return _read.get(model.model)
    made_by = model.cached_patcher_init
    if not (made_by and made_by[1] and isinstance(made_by[1][0], str)):
        return None
    path = Path(made_by[1][0])
    return path, version(path) if path.is_file() else None


def _noting(load: Callable) -> Callable:
    @functools.wraps(load)
    def loader(*args, **kwargs):
        path = Path(inspect.signature(load).bind(*args, **kwargs).args[0])
        before = version(path)
        made = load(*args, **kwargs)
        model = made[0] if isinstance(made, tuple) else made
        if model is not None:
            _read[model.model] = (path, before if version(path) == before else None)
        return made

    return loader
