"""A report in Markdown as HTML: the paragraphs, lists, tables, bold and code that reports have."""

import html
import itertools
import re

# what starts a line, and the element that lines of this kind make
KINDS = {"- ": "ul", "| ": "table", "": "p"}
CELL = re.compile(r"(?<!\\)\|")


def as_html(report: str) -> str:
    """The report as HTML; what it says itself is escaped."""

    def kind(line: str) -> str | None:
        return next(start for start in KINDS if line.startswith(start)) if line.strip() else None

    found = []
    for start, lines in itertools.groupby(report.split("\n"), key=kind):
        if start is not None:
            inner = {"- ": _items, "| ": _rows, "": "\n".join}[start](
                [_words(line.removeprefix("- ")) for line in lines]
            )
            found.append(f"<{KINDS[start]}>{inner}</{KINDS[start]}>")
    return "\n".join(found)


def _items(lines: list[str]) -> str:
    return "\n".join(f"<li>{line}</li>" for line in lines)


def _rows(lines: list[str]) -> str:
    """The rows of a table whose second line is dashes, as `markdown.table` writes it."""
    cells = [[each.strip() for each in CELL.split(line.strip())[1:-1]] for line in lines]
    made = [
        "".join(f"<{tag}>{each}</{tag}>".replace("\\|", "|") for each in row)
        for tag, rows in (("th", cells[:1]), ("td", cells[2:]))
        for row in rows
    ]
    return "\n".join(f"<tr>{row}</tr>" for row in made)


def _words(line: str) -> str:
    """A line with `**bold**` and `code` marked, everything else escaped."""
    line = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", html.escape(line, quote=False))
    return re.sub(r"`(.+?)`", r"<code>\1</code>", line)
