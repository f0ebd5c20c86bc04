"""A store's rows as files of any size, whole or not at all: JSON report, Parquet and page."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ...options.errors import PackError
from ...storage.whole import whole
from ..page import Shown
from ..report import as_text
from ..rules import Rules
from ..thumbnails import MOST, Thumbnail
from .store import Store
from .totals import Totals

ROWS = 10_000  # in a row group of Parquet
SHOWN = 300  # rows in a list of the page


class ExportError(PackError, ValueError):
    """The results can't be written as asked."""


def summarised(store: Store, rules: Rules) -> dict[str, Any]:
    """The summary of the selected rows of a store, and how many others it holds."""
    totals = Totals(*rules.opinions())
    for row in store.all():
        totals.add(row)
    return totals.summary() | {"rows_left_out": store.left_out()}


def write_json(
    path: Path, store: Store, summary: Mapping[str, Any], about: Mapping[str, Any]
) -> None:
    """The report as `images`, `unreadable`, `summary`, `about`; no more than a row is held."""
    with whole(path) as part, part.open("w", encoding="utf-8") as file:
        file.write('{\n"images": [')
        _write_rows(file.write, (row for row in store.all() if _is_image(row)))
        file.write('\n],\n"unreadable": [')
        unreadable = (row for row in store.all() if "unreadable" in row)
        _write_rows(
            file.write, ({**_named(row), "reason": row["unreadable"]} for row in unreadable)
        )
        file.write(f'\n],\n"summary": {as_text(summary)},\n"about": {as_text(about)}\n}}\n')


def parquet() -> ModuleType:
    """pyarrow, for those who ask for Parquet. Raises ExportError without it."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ExportError(
            f"Parquet needs pyarrow, which can't be imported ({error}): pip install pyarrow."
        ) from error
    return pyarrow


def write_parquet(path: Path, store: Store) -> None:
    """Every picture's row, readable or not, by path. The same rows give the same file."""
    arrow = parquet()
    schema = _schema(arrow)
    with (
        whole(path) as part,
        arrow.parquet.ParquetWriter(part, schema, compression="zstd") as writer,
    ):
        batch = []
        for row in store.all():
            if "other" in row:
                continue
            batch.append({**row, "second_flagged": row.get("second", {}).get("flagged")})
            if len(batch) == ROWS:
                writer.write_table(arrow.Table.from_pylist(batch, schema))
                batch = []
        writer.write_table(arrow.Table.from_pylist(batch, schema))


def _schema(arrow: ModuleType) -> Any:
    """The columns, and what is in each."""
    text, number, flag = arrow.string(), arrow.int64(), arrow.bool_()
    detection = arrow.struct(
        [
            ("class", text),
            ("score", arrow.float64()),
            ("box", arrow.list_(number)),
            ("counted", flag),
            ("frame", number),
            ("time", arrow.float64()),
            ("on", text),
            ("size", arrow.float64()),
            ("by", text),
        ]
    )
    return arrow.schema(
        [
            ("path", text),
            ("unreadable", text),
            ("flagged", flag),
            ("reasons", arrow.list_(text)),
            ("detections", arrow.list_(detection)),
            ("second_flagged", flag),
            ("format", text),
            ("mode", text),
            ("width", number),
            ("height", number),
            ("frames", number),
            ("frames_audited", number),
            ("mislabelled", flag),
            ("seconds", arrow.float64()),
            ("flagged_at", arrow.list_(arrow.list_(arrow.float64()))),
        ]
    )


def first_rows(
    store: Store, wanted: Callable[[Mapping[str, Any]], bool], most: int = SHOWN
) -> list[dict[str, Any]]:
    """The first rows of a kind, as many as a page shows."""
    found = []
    for row in store.all():
        if wanted(row):
            found.append(row)
            if len(found) == most:
                break
    return found


def shown(store: Store, thumbnail: Callable[[Mapping[str, Any]], Thumbnail | None]) -> Shown:
    """What a page shows of a store: `thumbnail` gives that of a row, or None without a picture."""
    flagged = first_rows(store, lambda row: bool(row.get("flagged")))
    clear = first_rows(store, lambda row: _is_image(row) and not row["flagged"], MOST)
    small = filter(None, map(thumbnail, [*flagged, *clear][:MOST]))
    return Shown(flagged, first_rows(store, lambda row: "unreadable" in row), list(small))


def _is_image(row: Mapping[str, Any]) -> bool:
    return "unreadable" not in row and "other" not in row


def _named(row: Mapping[str, Any]) -> dict[str, Any]:
    """What says which file, or which prompt, a row is of."""
    return {name: row[name] for name in ("path", "key", "prompt", "seed") if name in row}


def _write_rows(write: Callable[[str], object], rows: Iterable[Mapping[str, Any]]) -> None:
    for number, row in enumerate(rows):
        write(",\n" if number else "\n")
        write(json.dumps(row, ensure_ascii=False))
