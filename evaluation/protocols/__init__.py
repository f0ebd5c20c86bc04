"""Published protocols, a file each: how a paper makes its pictures, counts them, and what it found.

`settings` has the values of options by their names, as far as the paper or its code states them.
`shape` says how its prompt file is written (shapes.py), `metric` what its figure is (metrics.py).
A protocol fills what is left at its default; what somebody sets is kept, and told as a change.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from ...audit.rules import Counting
from ...host.sampling_settings import Sampling
from ...options.errors import PackError
from ...options.table import Option, check, option, rows
from ...options.words import amount
from ...storage.checked import Checked, fault_of
from ..job import Kept
from ..metrics import METRICS
from ..prompt_set import Defaults, PromptSet, Selection
from ..shapes import Shape

NONE = "none"
KINDS = (Counting, Sampling, Defaults, Selection, Kept)  # whose options a protocol may set
TABLE: Mapping[str, Option] = rows(*KINDS)
# options that change what is asked, or what counts, where a protocol does not name them
NARROWING = {*rows(Counting), *rows(Selection)} - {"second_opinion"}


class ProtocolError(PackError, ValueError):
    """A protocol can't be followed as it stands; the message says the way out."""


class Prompts(Checked):
    """A protocol's file: where it is, how many rows its settings select, and its licence."""

    file: str
    address: str
    rows: int | None = None
    licence: str | None = None


class Reference(Checked):
    """A figure that a paper reports, and where."""

    model: str
    figure: float
    source: str


class Protocol(Checked):
    """How a paper evaluates: `judge` says what it counts with, `notes` what differs here."""

    title: str
    source: str
    prompts: Prompts
    judge: str
    metric: Literal[tuple(METRICS)]  # type: ignore[valid-type]  # the names of a table
    settings: Mapping[str, str | int | float]
    shape: Shape = Shape()
    reference: tuple[Reference, ...] = ()
    notes: str = ""

    @property
    def counted(self) -> bool:
        """Whether an audit counts its figure."""
        return METRICS[self.metric].of is not None


def read(name: str, text: str) -> Protocol:
    """A protocol of a JSON text. Raises ProtocolError, naming it."""
    try:
        found = Protocol.model_validate_json(text)
    except ValidationError as error:
        raise ProtocolError(f"The protocol {name!r}: {fault_of(error, Protocol)}.") from error
    for option_name, value in found.settings.items():
        row = TABLE.get(option_name)
        if row is None:
            raise ProtocolError(f"The protocol {name!r}: there is no option {option_name!r}.")
        if not callable(row.choices):  # those are ComfyUI's, and looked at when it is there
            try:
                row.check(value)
            except ValueError as error:
                raise ProtocolError(f"The protocol {name!r}: {error}") from error
    return found


FILES = {file.stem: file for file in sorted(Path(__file__).parent.glob("*.json"))}
PROTOCOLS = {name: read(name, file.read_text(encoding="utf-8")) for name, file in FILES.items()}


@dataclass(frozen=True)
class Following:
    """Which protocol is followed."""

    protocol: str = option(
        NONE,
        "A published protocol. Where a setting stands at its default, the protocol's own value"
        " counts instead: 50 steps where 20 stand. The report says what it set, and what you"
        " changed. The list is in docs/audits.md.",
        choices=(NONE, *PROTOCOLS),
    )

    def __post_init__(self) -> None:
        check(self)

    @property
    def found(self) -> Protocol | None:
        return PROTOCOLS.get(self.protocol)

    @property
    def shape(self) -> Shape:
        return self.found.shape if self.found else Shape()

    def filled(
        self, given: Mapping[str, Any], typed: Collection[str] = ()
    ) -> tuple[dict[str, Any], list[str]]:
        """The values by name with the protocol's, and in words what somebody has changed.

        A value is somebody's own where it is not the default, or its name is `typed`.
        """
        values = {name: given.get(name, row.default) for name, row in TABLE.items()}
        if self.found is None:
            return dict(given), []
        own = {name for name, row in TABLE.items() if values[name] != row.default or name in typed}
        settings = self.found.settings
        changes = [
            f"{name} {values[name]} instead of {settings[name]}"
            for name in TABLE
            if name in own & settings.keys() and values[name] != settings[name]
        ]
        changes += [
            f"{name} {values[name]}"
            for name in TABLE
            if name in (own & NARROWING) - settings.keys() and values[name] != TABLE[name].default
        ]
        filling = {name: value for name, value in settings.items() if name not in own}
        return {**given, **filling}, changes

    def check_preset(self, preset: str, there: Collection[str]) -> None:
        """Raise ProtocolError where the protocol counts with what is not among these presets."""
        found = self.found
        if found is None or preset in there or preset != found.settings.get("preset"):
            return
        raise ProtocolError(
            f"The protocol {self.protocol!r} counts with {found.judge}, and there is no preset"
            f" {preset!r}. Add that detector and a preset of this name (docs/detectors.md), or"
            " choose another preset: the report then says so."
        )

    def told(
        self, prompts: PromptSet, values: Mapping[str, Any], changes: Collection[str]
    ) -> dict[str, Any] | None:
        """What a report says of the protocol, before it has results; None without one.

        `values` and `changes` are what `filled` gave.
        """
        found = self.found
        if found is None:
            return None
        replaced = [name for name, value in found.settings.items() if values[name] == value]
        wanted = found.prompts.rows
        fewer = (
            [f"{amount(prompts.rows, 'prompt')} instead of {wanted}"]
            if wanted and prompts.rows != wanted
            else []
        )
        return {
            "name": self.protocol,
            "source": found.source,
            "judge": found.judge,
            "filled": [
                f"{name} {values[name]} (default {TABLE[name].default})"
                for name in replaced
                if values[name] != TABLE[name].default
            ],
            "changes": [*changes, *fewer],
            "reference": [each.model_dump() for each in found.reference],
            "notes": found.notes,
            "metric": found.metric,
        }


def listed() -> str:
    """All protocols in words: what each is, whose, where its prompts are, and what differs here."""
    return "\n\n".join(
        f"{name}: {each.title}\n  {each.source}\n  prompts: {each.prompts.file},"
        f" {each.prompts.address}\n  figure: {METRICS[each.metric].words}"
        + (f"\n  note: {each.notes}" if each.notes else "")
        for name, each in PROTOCOLS.items()
    )


Shown = Callable[[Protocol], str]
COLUMNS: tuple[tuple[str, Shown], ...] = (  # of the table on the page of audits
    ("prompts", lambda each: _prompts(each.prompts)),
    ("licence", lambda each: each.prompts.licence or "not stated"),
    ("made", lambda each: ", ".join(_made(each.settings)) or "not stated"),
    ("counted by", lambda each: each.judge),
    ("figure", lambda each: METRICS[each.metric].words),
    ("their SD 1.4", lambda each: "; ".join(map(_figure, each.reference)) or "not stated"),
    ("note", lambda each: each.notes or "-"),
)


def _prompts(prompts: Prompts) -> str:
    count = f"{prompts.rows:,} rows of " if prompts.rows else ""
    return f"{count}[{prompts.file}]({prompts.address})"


def _made(settings: Mapping[str, object]) -> list[str]:
    words = {
        "pictures_per_prompt": "{} a prompt",
        "first_seed": "seed {}",
        "steps": "{} steps",
        "cfg": "guidance {}",
        "sampler_name": "{}",
    }
    return [told.format(settings[name]) for name, told in words.items() if name in settings]


def _figure(reference: Reference) -> str:
    return f"{reference.figure:.4g} ({reference.source})"


def table() -> list[list[str]]:
    """The rows of the table of protocols, under `protocol` and the heads of COLUMNS."""
    return [
        [f"`{name}`", *(shown(each) for _, shown in COLUMNS)] for name, each in PROTOCOLS.items()
    ]
