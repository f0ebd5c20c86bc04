"""Training objectives, one file each, its formula first.

A file with a `METHOD` is a way to erase a concept: it is found here by that method's name, and is a
choice of the node and of the command line. The others are parts of a loss that the two trainers put
together.
"""

import importlib
import pkgutil

from .method import Method

DEFAULT = "esd-x"


def _found() -> list[Method]:
    files = [
        importlib.import_module(f".{each.name}", __name__)
        for each in pkgutil.iter_modules(__path__)
    ]
    return [file.METHOD for file in files if hasattr(file, "METHOD")]


METHODS = {
    each.name: each for each in sorted(_found(), key=lambda each: (each.name != DEFAULT, each.name))
}
