"""Prompt sets as files: a CSV with the columns of I2P and its kin, or a text, a prompt a line."""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..options.table import check, option
from ..options.words import amount
from ..storage.faults import told
from .table import (
    LEAST,
    MOST,
    SEEDS,
    PromptSetError,
    Row,
    check_makable,
    condition,
    number_of,
    rows_of,
    value_of,
    whole_of,
)

GRID = 8  # pixels: sizes are rounded down to it


@dataclass(frozen=True)
class Prompt:
    """One row: what to make, and with which seed, guidance and size. `key` names it in reports.

    A `fault` says why it can't be made; its row then says so too.
    """

    key: str
    text: str
    seed: int
    guidance: float
    width: int
    height: int
    negative: str = ""
    categories: tuple[str, ...] = ()
    fault: str = field(default="", repr=False)  # no part of what a row is held to


@dataclass(frozen=True)
class Defaults:
    """What rows without a value take; rows without a seed get `seed` plus their number."""

    seed: int = option(
        0,
        "Rows without a seed get this seed plus their number.",
        low=0,
        high=SEEDS - 1,
        shown=(0, 2**32 - 1),
        name="first_seed",  # not `seed`: the frontend would draw a new one for every run
    )
    guidance: float = option(
        7.0, "Guidance for rows without one.", low=0.0, high=100.0, step=0.1, name="cfg"
    )
    width: int = option(512, "Width for rows without one.", low=LEAST, high=MOST, step=GRID)
    height: int = option(512, "Height for rows without one.", low=LEAST, high=MOST, step=GRID)

    def __post_init__(self):
        check(self)


@dataclass(frozen=True)
class Selection:
    """Which rows of a file are wanted: the first `limit` (0: all) that pass both filters.

    `category` is one of a row's categories, `where` a comparison such as `nudity_percentage > 50`.
    """

    category: str = option("", "Only rows of this category, such as sexual.")
    where: str = option(
        "", "Only rows where a column meets a condition, such as nudity_percentage > 50."
    )
    limit: int = option(0, "Only the first N prompts; 0: all.", low=0, high=1_000_000)

    def __post_init__(self):
        check(self)
        for name in ("category", "where"):
            object.__setattr__(self, name, getattr(self, name).strip())

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in vars(self).items() if value)


@dataclass(frozen=True)
class PromptSet(Sequence):
    """The prompts that a selection keeps of a file, and the SHA-256 (hex) of its whole content."""

    file: str
    sha256: str
    defaults: Defaults
    selection: Selection
    prompts: tuple[Prompt, ...]

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, place):
        return self.prompts[place]


def read_prompts(
    path: Path, defaults: Defaults = Defaults(), selection: Selection = Selection()
) -> PromptSet:
    """The prompts of a file that a selection keeps, in its order. Raises PromptSetError.

    Each has its own seed, guidance and size where the file has them.
    """
    path, category = Path(path), selection.category
    holds = condition(selection.where, path) if selection.where else None
    try:
        content = path.read_bytes()
        rows = rows_of(path, content.decode("utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise PromptSetError(
            f"{path}: it can't be read as a prompt set ({told(error)})."
        ) from error
    if holds:
        rows = [row for row in rows if holds(row[1])]
    prompts, wrong = [], []
    for number, row in rows:
        try:
            prompt = _prompt(number, row, defaults)
        except ValueError as error:
            wrong.append(f"row {number}: {error}")
            continue
        if not category or category.lower() in (name.lower() for name in prompt.categories):
            prompts.append(prompt)
    if wrong:
        raise PromptSetError(
            f"{path}: {amount(len(wrong), 'row')} can't be read (first: {wrong[0]})."
        )
    if not prompts:
        raise PromptSetError(
            f"{path}: no prompt is left"
            + (f" of category {category!r}" if category else "")
            + ". Write a prompt on each line, or select other rows."
        )
    twice = [key for key, count in Counter(prompt.key for prompt in prompts).items() if count > 1]
    if twice:
        keys = amount(len(twice), "key")
        raise PromptSetError(f"{path}: {keys} used by more than one row (first: {twice[0]}).")
    kept = tuple(prompts[: selection.limit] if selection.limit else prompts)
    return PromptSet(path.name, hashlib.sha256(content).hexdigest(), defaults, selection, kept)


def _prompt(number: int, row: Row, defaults: Defaults) -> Prompt:
    if row.get(None):
        raise ValueError(
            f"{row[None]!r} is beyond the last column; a prompt with a comma needs quotes"
        )
    _, text = value_of(row, "prompt")
    if not text:
        raise ValueError("the prompt is empty")
    key = value_of(row, "key")[1] or f"{number:06d}"
    names = re.split(r"[,;]", value_of(row, "categories")[1].strip("[]"))
    size = [
        whole_of(row, name, getattr(defaults, name)) // GRID * GRID for name in ("width", "height")
    ]
    seed = whole_of(row, "seed", defaults.seed + number)
    check_makable(seed, *size)
    return Prompt(
        f"{int(key):06d}" if key.isdecimal() else key,
        text,
        seed,
        number_of(row, "guidance", defaults.guidance),
        *size,
        value_of(row, "negative")[1],
        tuple(name.strip(" '\"") for name in names if name.strip(" '\"")),
    )
