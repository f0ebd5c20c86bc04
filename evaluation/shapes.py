"""How published prompt files are written where their columns do not tell: what a protocol says.

Nothing of it is guessed: what a file lacks of its protocol is refused, by file, row and way out.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from ..storage.checked import Checked, parsed
from .table import COLUMNS, PromptSetError, Row, rows_of, values_of

FIELD = re.compile(r"\{(\w+)\}")
OTHER = "Choose the protocol that this file is of, or none for a table with a column prompt."
Rows = list[tuple[int, Row]]


class Shape(Checked):
    """The shape of a file.

    `form`: a table with a header, lines that are a prompt each with no header, or a JSON list of
    objects. `columns` names the column of a meaning of `table.COLUMNS`, or "" for one that does not
    count. Each of `languages` is a column of prompts, and becomes a row with that category. Of a
    `template`, `a photo of {noun}`, prompts are made with a row's columns.
    """

    form: Literal["table", "lines", "json"] = "table"
    columns: Mapping[str, str] = Field(default={})
    languages: tuple[str, ...] = ()
    template: str = ""

    @model_validator(mode="after")
    def _has_meaning(self) -> "Shape":
        unknown = self.columns.keys() - COLUMNS.keys()
        if unknown:
            raise ValueError(f"`columns` has {min(unknown)!r}; there are {', '.join(COLUMNS)}")
        if self.form == "lines" and (self.columns or self.languages or self.template):
            raise ValueError("`form` lines has no columns")
        return self

    @property
    def needed(self) -> list[str]:
        """The columns that the file must have."""
        fields = [*filter(None, self.columns.values()), *self.languages]
        return [name.lower() for name in [*fields, *FIELD.findall(self.template)]]

    @property
    def prompts(self) -> set[str]:
        """The columns that prompts are made of."""
        asked = [self.columns.get("prompt", ""), *self.languages, *FIELD.findall(self.template)]
        return {name.lower() for name in asked if name} or set(COLUMNS["prompt"])


TABLE = Shape()


def rows_in(path: Path, text: str, shape: Shape = TABLE) -> Rows:
    """Number and values of each row of a file of this shape. Raises PromptSetError."""
    if shape.form == "lines":
        return _lines(path, text)
    if shape.form == "json" or (shape == TABLE and path.suffix.lower() == ".json"):
        rows = _objects(path, text, shape)
    else:
        rows = rows_of(path, text, shape.needed)
    return [each for number, row in rows for each in _meant(path, number, row, shape)]


def _lines(path: Path, text: str) -> Rows:
    found = [
        (number, {"prompt": line.strip()})
        for number, line in enumerate(io.StringIO(text, newline=None), 1)
        if line.strip()
    ]
    known = {"prompt_index", *(name for names in COLUMNS.values() for name in names)}
    first = next(iter(found), (0, {"prompt": ""}))[1]["prompt"]
    cells = next(csv.reader([first]), [])
    if "," in first or first.lower() in known:
        names = [cell.strip().lower() for cell in cells]
        if known & set(names) and all(re.fullmatch(r"[\w: ]*", name) for name in names):
            raise PromptSetError(
                f"{path}: row 1 is {first!r}, names of columns, but this protocol's file has no"
                f" header. {OTHER}"
            )
    return found


def _objects(path: Path, text: str, shape: Shape) -> Rows:
    try:
        told = parsed(text)
    except ValueError as error:
        raise PromptSetError(f"{path}: it can't be read as a prompt set ({error}).") from error
    if not isinstance(told, list):
        raise PromptSetError(f"{path}: it must be a list of objects, one for each prompt. {OTHER}")
    rows: Rows = []
    for number, each in enumerate(told, 1):
        if not isinstance(each, dict):
            raise PromptSetError(f"{path}: row {number} is {each!r}; it must be an object. {OTHER}")
        row = {name.strip().lower(): _as_text(value) for name, value in each.items()}
        if len(row) < len(each):
            raise PromptSetError(f"{path}: row {number} has one name twice: {', '.join(each)}.")
        lacking = [name for name in shape.needed or ["prompt"] if name not in row]
        if lacking:
            raise PromptSetError(
                f"{path}: row {number} has no {lacking[0]!r}; it has {', '.join(row)}. {OTHER}"
            )
        for name, value in each.items():
            if name.strip().lower() in shape.prompts and isinstance(value, list | dict):
                raise PromptSetError(
                    f"{path}: row {number}: the {name} is {value!r}; it must be a text."
                )
        rows.append((number, row))
    return rows


def _as_text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_as_text, value))
    return "" if value is None else str(value)


def _meant(path: Path, number: int, row: Row, shape: Shape) -> Iterator[tuple[int, Row]]:
    """The rows that one of the file means, with the columns that everything else knows."""
    meant = {
        name: value
        for name, value in row.items()
        if not any(name in COLUMNS[what] for what in shape.columns)
    }
    for what, name in shape.columns.items():
        if name:
            meant[COLUMNS[what][0]] = row[name.lower()]
    if shape.template:
        for name in FIELD.findall(shape.template):
            if not row[name.lower()].strip():
                raise PromptSetError(f"{path}: row {number}: the {name} is empty.")
        meant["prompt"] = FIELD.sub(lambda each: row[each[1].lower()].strip(), shape.template)
    if not shape.languages:
        yield number, meant
        return
    groups = values_of(meant, "categories")
    for language in shape.languages:
        if not row[language.lower()].strip():
            raise PromptSetError(f"{path}: row {number}: the prompt in {language} is empty.")
        key = {"case_number": f"{number:06d}-{language}"}
        joined = {"categories": ", ".join([*groups, language])}
        yield number, {**meant, "prompt": row[language.lower()], **key, **joined}
