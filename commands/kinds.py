"""Kinds of values that options take, checked as the line is read."""

import argparse
from collections.abc import Callable
from pathlib import Path


def file_named(*suffixes: str) -> Callable[[str], Path]:
    """A type for argparse: the path of a file to write, which must end in one of the suffixes."""
    ends = " or ".join(suffixes)

    def kind(text: str) -> Path:
        path = Path(text)
        if path.suffix.lower() not in suffixes:
            raise argparse.ArgumentTypeError(f"{text!r} must be a name that ends in {ends}")
        if path.is_dir():
            raise argparse.ArgumentTypeError(f"{text!r} is a folder; name a {ends} file in it")
        return path

    return kind


def folder(text: str) -> Path:
    """A type for argparse: the path of a folder to write into, which may be new."""
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a file; name a folder")
    return path
