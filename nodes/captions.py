"""Pictures without a caption: the node that trains on them says so, with the name of the first."""

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import folder_paths

from ..host.comfy_types import Conditioning
from ..storage.texts import TextError, read_text
from ..training.data import Dataset, warned
from .running import now, place_of

logger = logging.getLogger(__name__)
LOADER = "LoadImageTextDataSetFromFolder"
ENDINGS = (".png", ".jpg", ".jpeg", ".webp")  # of the pictures that it reads


def captions_told(dataset: Dataset, texts: Mapping[str, Conditioning], socket: str) -> Dataset:
    """A dataset with its warnings, which are logged.

    Without `clip` nothing is encoded, and the empty prompt is not known.
    """
    if "" not in texts:
        return dataset
    dataset = warned(dataset, texts[""], socket, _bare_files(socket))
    for warning in dataset.warnings:
        logger.warning("%s", warning)
    return dataset


def _bare_files(socket: str) -> list[str]:
    """The files without a caption that ComfyUI's loader read for a socket of the running node.

    None where another node loaded them.
    """
    node, graph = now()
    link = graph[node].get("inputs", {}).get(socket) if node is not None else None
    if not isinstance(link, list):
        return []
    places: dict[str, str] = {}
    place_of(link[0], graph, places)
    loaders = [graph[each] for each in places if graph[each].get("class_type") == LOADER]
    folders = [str(each.get("inputs", {}).get("folder")) for each in loaders]
    try:
        return [
            os.path.relpath(path, folder)
            for folder in (Path(folder_paths.get_input_directory(), name) for name in folders)
            for path in _pictures(folder)
            if not _caption(path.with_suffix(".txt"))
        ]
    except (OSError, TextError):
        return []  # it was read a moment ago; without names the pictures are numbered


def _pictures(folder: Path) -> Iterator[Path]:
    """The pictures that the loader takes: those of folders in it too."""
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in ENDINGS:
            yield path
        elif path.is_dir():
            yield from (each for each in sorted(path.iterdir()) if each.suffix.lower() in ENDINGS)


def _caption(file: Path) -> str:
    return read_text(file).strip() if file.exists() else ""
