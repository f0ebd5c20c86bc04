"""Tables and shares as Markdown, for reports that people read."""

from collections.abc import Iterable, Sequence

from ..options.language import say

FINEST = 6  # digits after the point of a percentage


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a Markdown table, its columns aligned for where it is shown as plain text."""
    cells = [[_cell(cell) for cell in line] for line in (head, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    lines = [cells[0], ["-" * width for width in widths], *cells[1:]]
    return [
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |"
        for line in lines
    ]


def share(value: float | None, sign: str = "", digits: int = 1) -> str:
    """A share of 1 in percent, or a dash where there is none; never `0.0 %` of what is more."""
    if value is None:
        return "-"
    while value and digits < FINEST and not float(f"{100 * value:.{digits}f}"):
        digits += 1
    return f"{100 * value:{sign}.{digits}f} %"


def span(bounds: Sequence[float], sign: str = "") -> str:
    """An interval of shares of 1, in percent."""
    low, high = (share(bound, sign) for bound in bounds)
    return say("{low} to {high}", low=low, high=high)


def _cell(value: object) -> str:
    """The text of a cell: on one line, and with `|` escaped, which would end the cell."""
    return str(value).replace("|", r"\|").replace("\n", " ")
