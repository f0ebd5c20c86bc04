"""Check the operator's settings, begin a file of them, or explain each. Needs no ComfyUI.

    python custom_nodes/modular-safety-lora settings check
    python custom_nodes/modular-safety-lora settings init
    python custom_nodes/modular-safety-lora settings explain

`check` says in words what holds and what stays open, and its exit code is 1 if the file has a
mistake: nothing samples then. `init` writes a file to fill in, and keeps one that is there. Both
take `user/modular-safety-lora.json` in ComfyUI's folder, unless FILE names another.
"""

import argparse
from pathlib import Path

from ..demands.fields import starts_with
from ..demands.file import FILE, misplaced, settings_in
from ..demands.words import START, comments, explained, faults_in, holds, left_open, start
from ..storage.whole import write_text
from .base import add_comfyui
from .users import user_folder


def options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("what", choices=WORK, help="what to do")
    add("file", nargs="?", type=Path, metavar="FILE", help="the settings, where they are others")
    add_comfyui(parser)


def work(options: argparse.Namespace) -> int:
    return WORK[options.what](options)


def _file(options: argparse.Namespace) -> Path:
    return (options.file or user_folder(options.comfyui) / FILE).absolute()


def _check(options: argparse.Namespace) -> int:
    path = _file(options)
    if options.file and not path.exists():
        raise FileNotFoundError(2, "", str(path))
    print(path)
    faults = faults_in(path)
    if faults:
        print("Nothing samples until this is corrected and ComfyUI is restarted:")
        _list(faults)
        return 1
    found = settings_in(path)
    held = holds(found)
    print("This holds:" if held else "There are no settings: nothing is demanded.")
    _list(held)
    if held and (opened := left_open(found, path)):
        print("Look at this:")
        _list(opened)
    late = [each for each in type(found).model_fields if starts_with(each)]
    if held:
        print(f"Restart ComfyUI after a change of {', '.join(late)}: they are read when it starts.")
    return 0


def _init(options: argparse.Namespace) -> int:
    path = _file(options)
    if path.exists():
        raise FileExistsError(17, "", str(path))
    write_text(path, start())
    print(f"{path}: fill in the lists, or take them out; then restart ComfyUI.")
    _list(comments(START))
    for each in misplaced(path):
        print(f"{each} is read by nothing.")
    return 0


def _explain(options: argparse.Namespace) -> int:
    print("\n".join(explained()))
    return 0


def _list(said: list[str]) -> None:
    for each in said:
        print(f"- {each}")


WORK = {"check": _check, "init": _init, "explain": _explain}
