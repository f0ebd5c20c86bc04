"""The inputs of a node from the table of options, and its settings from what they are given."""

from collections.abc import Callable, Mapping

from comfy_api.latest import io

from ..host.prompts import lines_of
from ..options.errors import PackError
from ..options.table import Option, made, rows


class Inputs:
    """The inputs that some settings classes make, in the order that a node names them.

    A new row, which it does not name, stands at its end, so that saved workflows keep their
    widgets; once it is in them, the node names it. `without` are rows that this node does not
    have. With `finer`, what is typed may be finer than a widget's step.
    """

    def __init__(
        self,
        *kinds: type,
        of: str | None = None,
        without: tuple[str, ...] = (),
        finer: bool = False,
    ):
        self.left = {n: row for n, row in rows(*kinds, of=of).items() if n not in without}
        self.finer = finer

    def shown(self, *names: str, **more) -> list[io.Input]:
        """Inputs that every user looks at."""
        return [input_of(self.left.pop(name), self.finer, **more) for name in names]

    def aside(self, *names: str, **more) -> list[io.Input]:
        """Inputs that have a good default, out of the way."""
        return self.shown(*names, optional=True, advanced=True, **more)

    def rest(self) -> list[io.Input]:
        """All that were not named."""
        return self.aside(*list(self.left))


def input_of(row: Option, finer: bool = False, **more) -> io.Input:
    """A row of the table as a node's input."""
    told = {"default": row.default, "tooltip": row.words, **more}
    if row.choices:
        return io.Combo.Input(row.name, **{"options": list(row.there()), **told})
    if row.lines:
        return io.String.Input(row.name, **{**told, "default": "", "multiline": True})
    if isinstance(row.default, str):
        return io.String.Input(row.name, **told)
    if isinstance(row.default, bool):
        return io.Boolean.Input(row.name, **told)
    low, high = row.ends
    ends = {"min": low, "max": high, **({"step": row.step} if row.step else {})}
    if isinstance(row.default, int):
        # the frontend would draw a new one
        fixed = {"control_after_generate": False} if row.name == "seed" else {}
        return io.Int.Input(row.name, **ends, **fixed, **told)
    places = {"round": row.step / 100} if finer and row.step else {}
    return io.Float.Input(row.name, **ends, **places, **told)


def mistake(check: Callable[[], object]) -> bool | str:
    """What `validate_inputs` says of a check: True, or in words what is wrong."""
    try:
        check()
    except (PackError, ValueError) as error:
        return str(error)
    return True


def taken(inputs: Mapping[str, object], *kinds: type) -> list:
    """The settings that a node's inputs give, one of each class; checked as they are made.

    Raises TypeError for an input that none of them has.
    """
    table = rows(*kinds)
    unknown = inputs.keys() - table.keys()
    if unknown:
        raise TypeError(f"There is no input {min(unknown)!r}; there are {', '.join(table)}.")
    given = {
        name: tuple(lines_of(value or "")) if table[name].lines else value
        for name, value in inputs.items()
    }
    return [made(kind, given) for kind in kinds]
