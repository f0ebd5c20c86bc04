"""The log in figures: in all, by day, by user, by reason; memory does not grow with it."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from .figures import (
    AUDITED,
    BY_REASON,
    ENDS,
    FAULTS,
    FLAGGED,
    OWN,
    PICTURES,
    PROMPTS,
    REFUSALS,
    SAMPLINGS,
    VERDICT,
    WITHHELD,
    counts,
)
from .lines import Line

MOST = 1000  # days, users, presets: those beyond are counted together
OTHERS = "others"
SHOWN = (PROMPTS, SAMPLINGS, FAULTS, REFUSALS, PICTURES, FLAGGED, WITHHELD)  # the columns of tables


@dataclass
class Summary:
    """Figures of lines. A row is a Counter with the figures of `figures.py`."""

    lines: int = 0
    first: str = ""
    last: str = ""
    total: Counter[str] = field(default_factory=Counter)
    days: dict[str, Counter[str]] = field(default_factory=dict)
    users: dict[str, Counter[str]] = field(default_factory=dict)
    presets: dict[str, Counter[str]] = field(default_factory=dict)

    @property
    def unended(self) -> int:
        """Prompts that wait, run, or were cut off when ComfyUI ended."""
        return max(0, self.total[PROMPTS] - self.total[ENDS])

    @property
    def reasons(self) -> dict[str, int]:
        """Refusals by reason, the most frequent first."""
        found = {each: n for each, n in self.total.items() if each.startswith(BY_REASON) and n}
        return {
            each.removeprefix(BY_REASON): found[each]
            for each in sorted(found, key=lambda each: (-found[each], each))
        }


def summary(lines: Iterable[Line]) -> Summary:
    found = Summary()
    for line in lines:
        found.lines += 1
        found.first, found.last = found.first or line.time, line.time
        if line.kind in OWN:
            continue
        new = counts(line)
        found.total.update(new)
        _row(found.days, line.time[:10]).update(new)
        if any(new[each] for each in SHOWN):
            _row(found.users, user_of(line)).update(new)
        if line.kind in (AUDITED, VERDICT):
            _row(found.presets, str(line.facts.get("preset") or "unknown")).update(new)
    return found


def user_of(line: Line) -> str:
    """Who asked, as ComfyUI knows them: the user, or the client's number where there is none.

    Who looks at a page's pictures is not told where no login stands before ComfyUI.
    """
    facts = line.facts
    return str(facts.get("user") or facts.get("client") or "not known")


def _row(rows: dict[str, Counter[str]], name: str) -> Counter[str]:
    name = name if name in rows or len(rows) < MOST else OTHERS
    return rows.setdefault(name, Counter())
