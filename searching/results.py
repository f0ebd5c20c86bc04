"""What a search came to: in words, with the prompts that were found, and as pictures."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ..audit.about import in_a_line
from ..audit.compare import comparison_table
from ..audit.compared_files import PAGE, write_comparison
from ..options.words import amount
from .settings import Searching
from .sheet import sheet

TOLD, FOUND, EMBEDDINGS = "as-told", "found", "embeddings"
Json = dict[str, Any]
PAPER = Searching().levels
WHITE_BOX = (
    "White-box: the search reads the model's gradients, which takes its files. Whoever only sends"
    " prompts to a server can't do that."
)


@dataclass(frozen=True)
class Searched:
    """A search in words, the prompts that bring the concept back, the report, and pictures."""

    words: str
    prompts: tuple[str, ...]
    report: str
    sheet: Image.Image


def results(folder: Path, how: Searching) -> Searched:
    """What lies in the folder of a search, and the comparison of its two audits, written there.

    Raises ValueError where no picture could be looked at.
    """
    files = {name: folder / name / "report.json" for name in (TOLD, FOUND)}
    texts = {name: file.read_text(encoding="utf-8") for name, file in files.items()}
    told, found = (json.loads(texts[name]) for name in (TOLD, FOUND))
    if not found["summary"]["images"]:
        page = folder / FOUND / "report.html"
        raise ValueError(
            f"{found['summary']['verdict'].capitalize()}, so the search has no result. The reasons"
            f" are in {page}."
        )
    comparison = write_comparison(files, folder)
    rows = [_by_key(folder / name, each) for name, each in ((TOLD, told), (FOUND, found))]
    back = [key for key, row in rows[1].items() if row["flagged"] and not _flagged(rows[0], key)]
    made_by = in_a_line(found["about"])
    lines = [
        *([made_by, ""] if made_by else []),
        _verdict(found["unreadable"], rows, back),
        "",
        comparison_table(comparison),
        "",
        *(f"- {line}" for line in _remarks(found, how, folder)),
    ]
    first = [*back, *(key for key in rows[0] if key not in back)]
    pairs = [(rows[0][key]["prompt"], rows[0][key], rows[1].get(key)) for key in first]
    prompts = tuple(rows[1][key]["prompt"] for key in back)
    return Searched("\n".join(lines), prompts, texts[FOUND], sheet(pairs))


def _by_key(folder: Path, report: Json) -> dict[str, Json]:
    """The rows of an audit by key, with the file of each picture that was kept."""
    return {
        row["key"]: {**row, "file": folder / row["picture"]} if row.get("picture") else row
        for row in report["images"]
    }


def _flagged(rows: Mapping[str, Json], key: str) -> bool:
    return key in rows and bool(rows[key]["flagged"])


def _verdict(failed: list[Json], rows: list[dict[str, Json]], back: list[str]) -> str:
    """What the search found, in bold, and what that is of."""
    held = sum(not row["flagged"] for row in rows[0].values())
    already = len(rows[0]) - held
    bold = (
        f"{len(back)} of {amount(held, 'picture')} that held as told {_were(len(back))}"
        " brought back"
        if held
        else "Nothing was searched: every picture is flagged as told"
    )
    said = [f"{amount(already, 'picture')} {_were(already)} flagged as told." if held else ""]
    if failed:
        first = f"first: {failed[0]['key']}, {failed[0]['reason']}"
        said.append(f"{len(failed)} could not be searched, which says nothing of them ({first}).")
    return f"**{bold}.** {' '.join(filter(None, said))}".strip()


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def _remarks(found: Json, how: Searching, folder: Path) -> list[str]:
    fewer = (
        [
            f"{amount(how.levels, 'noise level')} {_were(how.levels)} tried; the paper tries"
            f" {PAPER}, and finds more."
        ]
        if how.levels < PAPER and how.kind != "chance"
        else []
    )
    protocol = found["summary"].get("protocol", {}).get("said", ())
    return [
        WHITE_BOX,
        *fewer,
        *protocol,
        *found["summary"]["lock_findings"],
        f"Elsewhere these prompts need the files in {folder / EMBEDDINGS}: copy them to"
        " models/embeddings.",
        f"Page: {folder / PAGE}",
    ]
