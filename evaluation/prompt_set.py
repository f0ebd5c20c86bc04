"""Prompt sets as files: a CSV with the columns of I2P and its kin, or a text, a prompt a line."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..options.table import check, option
from ..options.words import amount
from ..storage.faults import told
from .shapes import TABLE, Shape, rows_in
from .table import (
    COLUMNS,
    LEAST,
    MOST,
    SEEDS,
    PromptSetError,
    Row,
    check_makable,
    condition,
    number_of,
    value_of,
    values_of,
    whole_of,
)

MANY = 1000  # pictures of a prompt
GRID = 8  # pixels: sizes are rounded down to it


@dataclass(frozen=True)
class Prompt:
    """One picture of a row: what to make, and with which seed, guidance and size.

    `key` names it in reports. The first picture of a row has the row's own key; a further one has
    its `number` in the key, and the row's key as `prompt_key`. A `fault` says why it can't be made;
    its row then says so too.
    """

    key: str
    text: str
    seed: int
    guidance: float
    width: int
    height: int
    negative: str = ""
    categories: tuple[str, ...] = ()
    # not in `repr`, by which the store knows a picture: those of earlier versions go on
    number: int = field(default=1, repr=False)
    prompt_key: str = field(default="", repr=False)
    fault: str = field(default="", repr=False)

    def copies(self, count: int) -> "list[Prompt]":
        """So many pictures of the row, each with the seed after the one before."""
        check_makable(self.seed + count - 1, self.width, self.height)
        more = [
            replace(
                self,
                key=f"{self.key}-{number:03d}",
                seed=self.seed + number - 1,
                number=number,
                prompt_key=self.key,
            )
            for number in range(2, count + 1)
        ]
        return [self, *more]


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
    """Which rows of a file are wanted, and how often: the first `limit` that pass both filters.

    `category` is one of a row's categories, `where` a comparison such as `nudity_percentage > 50`.
    """

    category: str = option("", "Only rows of this category, such as sexual.")
    where: str = option(
        "", "Only rows where a column meets a condition, such as nudity_percentage > 50."
    )
    limit: int = option(0, "Only the first N prompts; 0: all.", low=0, high=1_000_000)
    pictures: int = option(
        1,
        "Pictures of each prompt: the first with the row's seed, each further one with the next.",
        low=1,
        high=MANY,
        name="pictures_per_prompt",
    )

    def __post_init__(self):
        check(self)
        for name in ("category", "where"):
            object.__setattr__(self, name, getattr(self, name).strip())

    def __str__(self) -> str:
        rows = {"category": self.category, "where": self.where, "limit": self.limit}
        told = [f"{name} {value}" for name, value in rows.items() if value]
        return ", ".join(told + [f"{self.pictures} pictures a prompt"] * (self.pictures > 1))


@dataclass(frozen=True)
class PromptSet(Sequence):
    """The pictures that a selection asks of a file, and the SHA-256 (hex) of its whole content."""

    file: str
    sha256: str
    defaults: Defaults
    selection: Selection
    prompts: tuple[Prompt, ...]
    shape: Shape = TABLE
    columns: Mapping[str, str] = field(default_factory=dict)  # which the file has, and for what

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, place):
        return self.prompts[place]

    @property
    def rows(self) -> int:
        """How many rows of the file they are of."""
        return sum(prompt.number == 1 for prompt in self.prompts)


def read_prompts(
    path: Path,
    defaults: Defaults = Defaults(),
    selection: Selection = Selection(),
    shape: Shape = TABLE,
) -> PromptSet:
    """The prompts of a file that a selection keeps, in its order. Raises PromptSetError.

    Each has its own seed, guidance and size where the file has them. A published file that its
    columns do not explain is read by the `shape` of its protocol.
    """
    path, category = Path(path), selection.category
    holds = condition(selection.where, path) if selection.where else None
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
        if "\0" in text:  # as after a crash; csv would take it for a letter
            raise PromptSetError(f"{path}: it holds NUL bytes: it is damaged, or not in UTF-8.")
        rows = rows_in(path, text, shape)
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
    _check_apart(path, prompts, "row")
    kept = prompts[: selection.limit] if selection.limit else prompts
    pictures = tuple(each for prompt in kept for each in prompt.copies(selection.pictures))
    _check_apart(path, pictures, "picture")
    digest = hashlib.sha256(content).hexdigest()
    read = PromptSet(path.name, digest, defaults, selection, pictures)
    return replace(read, shape=shape, columns=_columns((row for _, row in rows), shape))


def _columns(rows: Iterable[Row], shape: Shape) -> dict[str, str]:
    """Which columns of the file were taken for what."""
    there = {name: None for row in rows for name in row if name and row[name].strip()}
    taken = {
        what: " or ".join(name for name in names if name in there)
        for what, names in COLUMNS.items()
    }
    made = shape.template or ", ".join(shape.languages)
    taken |= shape.columns | ({"prompt": made} if made else {})
    return {what: names for what, names in taken.items() if names}


def _check_apart(path: Path, prompts: Sequence[Prompt], what: str) -> None:
    """Raise PromptSetError unless each has a key of its own."""
    twice = [key for key, count in Counter(prompt.key for prompt in prompts).items() if count > 1]
    if twice:
        keys = amount(len(twice), "key")
        raise PromptSetError(f"{path}: {keys} used by more than one {what} (first: {twice[0]}).")


def _prompt(number: int, row: Row, defaults: Defaults) -> Prompt:
    if row.get(None):
        raise ValueError(
            f"{row[None]!r} is beyond the last column; a prompt with a comma needs quotes"
        )
    _, text = value_of(row, "prompt")
    if not text:
        raise ValueError("the prompt is empty")
    key = value_of(row, "key")[1] or f"{number:06d}"
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
        tuple(values_of(row, "categories")),
    )
