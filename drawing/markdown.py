"""Tables and shares as Markdown, for reports that people read."""

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a Markdown table, its columns aligned for where it is shown as plain text."""
    cells = [[_cell(cell) for cell in line] for line in (head, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    lines = [cells[0], ["-" * width for width in widths], *cells[1:]]
    return [
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |"
        for line in lines
    ]


def share(value: float | None) -> str:
    """A share of 1 in percent, or a dash where there is none."""
    return "-" if value is None else f"{value:.1%}".replace("%", " %")


def _cell(value: object) -> str:
    """The text of a cell: on one line, and with `|` escaped, which would end the cell."""
    return str(value).replace("|", r"\|").replace("\n", " ")
