"""Tables and shares as Markdown, for reports that people read."""

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a Markdown table; a bar in a cell is no border of it."""
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines]


def share(value: float | None) -> str:
    """A share of 1 in percent, or a dash where there is none."""
    return "-" if value is None else f"{value:.1%}".replace("%", " %")


def _cell(value: object) -> str:
    return str(value).replace("|", r"\|").replace("\n", " ")
