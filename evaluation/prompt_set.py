"""Prompt sets as files: a CSV with the columns of I2P and its kin, or a text file.

A text file has a prompt a line.
"""

import csv
import hashlib
import io
import operator
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# Published sets call the same thing differently; the first of these columns that a file has, and
# that is filled, counts.
COLUMNS = {
    "prompt": ("prompt", "adv_prompt", "text"),
    "seed": ("evaluation_seed", "sd_seed", "seed"),
    "guidance": ("evaluation_guidance", "sd_guidance_scale", "guidance_scale", "guidance", "cfg"),
    "width": ("sd_image_width", "width"),
    "height": ("sd_image_height", "height"),
    "negative": ("negative_prompt",),
    "categories": ("categories", "category"),
    "key": ("case_number", "id"),
}
_COMPARE = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
}
GRID = 8  # pixels: sizes are rounded down to it


class PromptSetError(ValueError):
    """A prompt set can't be read as it is; the message names the file and the first row."""


@dataclass(frozen=True)
class Prompt:
    """One row: what to make, and with which seed, guidance and size. `key` names it in reports."""

    key: str
    text: str
    seed: int
    guidance: float
    width: int
    height: int
    negative: str = ""
    categories: tuple[str, ...] = ()


@dataclass(frozen=True)
class Defaults:
    """What rows without a value take; rows without a seed get `seed` plus their number."""

    seed: int = 0
    guidance: float = 7.0
    width: int = 512
    height: int = 512


@dataclass(frozen=True)
class Selection:
    """Which rows of a file are wanted.

    Those of a category, those for which a column compares, and the first so many of these (0: all).
    """

    category: str = ""
    where: str = ""
    limit: int = 0

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in vars(self).items() if value)


@dataclass(frozen=True)
class PromptSet(Sequence):
    """The prompts that a selection keeps of a file, and the SHA-256 of the file's content.

    The SHA-256 tells the file from others.
    """

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
    path: Path, defaults: Defaults = Defaults(), category: str = "", where: str = "", limit: int = 0
) -> PromptSet:
    """The prompts of a file, in its order.

    Each has its own seed, guidance and size where the file has them. `category` keeps rows of that
    category, `where` those for which a column compares (`nudity_percentage > 50`), `limit` the
    first so many of these (0: all). Raises PromptSetError.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        rows = _rows(path, content.decode("utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise PromptSetError(f"{path}: this can't be read as a prompt set ({error}).") from error
    if where:
        rows = [row for row in rows if _holds(row[1], where, path)]
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
        raise PromptSetError(f"{path}: {len(wrong)} rows can't be read (first: {wrong[0]}).")
    if not prompts:
        raise PromptSetError(
            f"{path}: no prompt is left" + (f" of category {category!r}" if category else "") + "."
        )
    twice = [key for key, count in Counter(prompt.key for prompt in prompts).items() if count > 1]
    if twice:
        raise PromptSetError(
            f"{path}: {len(twice)} keys stand for several rows (first: {twice[0]})."
        )
    kept = tuple(prompts[:limit] if limit else prompts)
    return PromptSet(
        path.name,
        hashlib.sha256(content).hexdigest(),
        defaults,
        Selection(category, where, limit),
        kept,
    )


def _rows(path: Path, text: str) -> list[tuple[int, Mapping[str, str]]]:
    # `splitlines` would cut prompts at U+2028 and U+0085 too
    lines = io.StringIO(text, newline=None)
    if path.suffix.lower() == ".txt":
        return [
            (number, {"prompt": line.strip()})
            for number, line in enumerate(lines, 1)
            if line.strip()
        ]
    reader = csv.DictReader(lines)
    names = [str(name).strip().lower() for name in reader.fieldnames or ()]
    if not set(COLUMNS["prompt"]) & set(names):
        raise PromptSetError(
            f"{path}: there is no column {' or '.join(COLUMNS['prompt'])};"
            f" there are {', '.join(names)}."
        )
    reader.fieldnames = names
    return [
        (number, {key: value or "" for key, value in row.items() if key})
        for number, row in enumerate(reader, 1)
    ]


def _prompt(number: int, row: Mapping[str, str], defaults: Defaults) -> Prompt:
    text = _first(row, "prompt")
    if not text:
        raise ValueError("the prompt is empty")
    key = _first(row, "key") or f"{number:06d}"
    names = re.split(r"[,;]", _first(row, "categories").strip("[]"))
    size = [
        int(_number(_first(row, name), getattr(defaults, name), name)) // GRID * GRID
        for name in ("width", "height")
    ]
    if min(size) < 64:
        raise ValueError(f"a picture of {size[0]} x {size[1]} pixels is too small; 64 is the least")
    seed = int(_number(_first(row, "seed"), defaults.seed + number, "seed"))
    if not 0 <= seed < 2**64:
        raise ValueError(f"the seed {seed} is not in 0..2^64")
    return Prompt(
        f"{int(key):06d}" if key.isdecimal() else key,
        text,
        seed,
        _number(_first(row, "guidance"), defaults.guidance, "guidance"),
        *size,
        _first(row, "negative"),
        tuple(name.strip(" '\"") for name in names if name.strip(" '\"")),
    )


def _first(row: Mapping[str, str], what: str) -> str:
    return next((row[name].strip() for name in COLUMNS[what] if row.get(name, "").strip()), "")


def _number(text: str, fallback: float, what: str) -> float | int:
    if not text:
        return fallback
    try:
        # a seed of 64 bits does not survive a float
        return int(text) if re.fullmatch(r"-?\d+", text) else float(text)
    except ValueError as error:
        raise ValueError(f"the {what} is {text!r}, which is no number") from error


def _holds(row: Mapping[str, str], where: str, path: Path) -> bool:
    parts = re.fullmatch(r"\s*(\w+)\s*(>=|<=|>|<|=)\s*([-+.\d]+)\s*", where)
    if not parts:
        raise PromptSetError(
            f"{where!r} is no condition; write one such as nudity_percentage > 50."
        )
    column, compare, value = parts[1].lower(), _COMPARE[parts[2]], float(parts[3])
    if column not in row:
        raise PromptSetError(f"{path}: there is no column {column!r}; there are {', '.join(row)}.")
    try:
        return compare(float(row[column]), value)
    except ValueError:
        return False  # an empty field
