"""The rows of a prompt file as they stand there: columns, numbers, and conditions on them.

Whatever can't be meant is refused by row and column: half a quote makes one prompt of many.
"""

import csv
import io
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..options.errors import PackError

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
LEAST, MOST = 64, 16384  # pixels of a side
SEEDS = 2**64
LONGEST = 300  # letters of a header that is shown
Row = Mapping[str | None, str]


class PromptSetError(PackError, ValueError):
    """A prompt set can't be read as it is; the message names the file and the first row."""


def rows_of(path: Path, text: str, needed: Sequence[str] = ()) -> list[tuple[int, Row]]:
    """Number and values of each row; what stands beyond the last column is under None.

    There must be all `needed` columns, or else one of the prompt.
    """
    # `splitlines` would cut prompts at U+2028 and U+0085 too
    lines = io.StringIO(text, newline=None)
    if path.suffix.lower() == ".txt":
        return [
            (number, {"prompt": line.strip()})
            for number, line in enumerate(lines, 1)
            if line.strip()
        ]
    reader = csv.DictReader(lines, strict=True)
    rows, number = [], 0
    try:
        names = [str(name).strip().lower() for name in reader.fieldnames or ()]
        _check_columns(path, names, needed)
        reader.fieldnames = names
        for number, row in enumerate(reader, 1):
            more = "".join(row.pop(None, ()))
            rows.append((number, {key: value or "" for key, value in row.items()} | {None: more}))
    except csv.Error as error:
        raise PromptSetError(
            f"{path}: row {number + 1} can't be read ({error}). A quote is not closed there, or is"
            " in a place where none is allowed; inside a quoted text, write two for one."
        ) from error
    return rows


def _check_columns(path: Path, names: Sequence[str], needed: Sequence[str]) -> None:
    if not any(names):
        raise PromptSetError(
            f"{path}: it is empty. Write a row for each prompt, below a header with `prompt`."
        )
    lacking = [name for name in needed if name not in names]
    wanted = lacking[0] if lacking else " or ".join(COLUMNS["prompt"])
    if lacking or not (needed or set(COLUMNS["prompt"]) & set(names)):
        shown = ", ".join(names)
        shown = shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}..."
        raise PromptSetError(
            f"{path}: there is no column {wanted}; there are {shown}. For a published file whose"
            " columns are named in another way, or that has no header, choose its protocol."
        )
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice:
        raise PromptSetError(f"{path}: {names.count(twice)} columns are named {twice}; keep one.")


def values_of(row: Row, what: str) -> list[str]:
    """The values of a list, such as categories, that is written as `a, b` or `['a', 'b']`."""
    names = re.split(r"[,;]", value_of(row, what)[1].strip("[]"))
    return [name.strip(" '\"") for name in names if name.strip(" '\"")]


def value_of(row: Row, what: str) -> tuple[str, str]:
    """The first filled column of those that mean this, and what it holds; "" for none."""
    filled = (name for name in COLUMNS[what] if row.get(name, "").strip())
    name = next(filled, "")
    return name, row[name].strip() if name else ""


def number_of(row: Row, what: str, fallback: float) -> float | int:
    """The finite number in a column. Raises ValueError for anything else."""
    name, text = value_of(row, what)
    if not text:
        return fallback
    try:
        # a seed of 64 bits does not survive a float
        number = int(text) if re.fullmatch(r"[-+]?\d+", text) else float(text)
    except ValueError as error:
        raise ValueError(f"the {name} is {text!r}, which is not a number") from error
    if not math.isfinite(number):
        raise ValueError(f"the {name} is {text!r}, which is not a finite number")
    return number


def whole_of(row: Row, what: str, fallback: int) -> int:
    """The whole number in a column, also where it is written as 5.0."""
    number = number_of(row, what, fallback)
    if number != int(number):
        name, text = value_of(row, what)
        raise ValueError(f"the {name} is {text!r}, which is not a whole number")
    return int(number)


def condition(where: str, path: Path) -> Callable[[Row], bool]:
    """Whether a row's column compares, as in `nudity_percentage > 50`; an empty field does not."""
    parts = re.fullmatch(r"\s*(\w+)\s*(>=|<=|>|<|=)\s*([-+]?(?:\d+\.?\d*|\.\d+))\s*", where)
    if not parts:
        raise PromptSetError(
            f"{where!r} is not a condition; write one such as nudity_percentage > 50."
        )
    column, compare, value = parts[1].lower(), _COMPARE[parts[2]], float(parts[3])

    def holds(row: Row) -> bool:
        if column not in row:
            there = ", ".join(filter(None, row))
            raise PromptSetError(f"{path}: there is no column {column!r}; there are {there}.")
        try:
            return compare(float(row[column]), value)
        except ValueError:
            return False

    return holds


def check_makable(seed: int, width: int, height: int) -> None:
    """Raise PromptSetError for a picture that no prompt can ask for."""
    if not (LEAST <= width <= MOST and LEAST <= height <= MOST):
        raise PromptSetError(
            f"a picture of {width} x {height} pixels can't be made; a side has {LEAST} to {MOST}"
        )
    if not 0 <= seed < SEEDS:
        raise PromptSetError(f"the seed {seed} is not in 0..2^64")
