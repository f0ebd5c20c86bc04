"""One audit of a prompt set: what is asked, and where its rows lie."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from ..audit.folders.store import Store
from ..audit.rules import Rules
from ..host.sampling_settings import Sampling
from ..options.table import check, option
from ..storage.faults import worded
from .prompt_set import Prompt, PromptSet
from .shapes import TABLE

STORE = "audit.sqlite"
KEEP = ("none", "flagged, censored", "all, censored", "all, as they are")


@dataclass(frozen=True)
class Kept:
    """What is kept beside the rows."""

    keep: str = option("none", "Which pictures are kept as files.", choices=KEEP)

    def __post_init__(self):
        check(self)


def unseen(done: int, picture: Image.Image | None) -> None:
    """Nobody watches."""


@dataclass(frozen=True)
class AuditJob:
    """A prompt set, how it is sampled and judged, and the folder of the results.

    The report calls the run by its `name`, or its folder's. `loras` are on the model beside those
    that a merge knows: name, role, sha256, strength. `on_picture` is called with the count done and
    the newest picture, what is counted blurred; it may raise to stop. `loaded` are the files and
    settings that the model is made of, where they are known: `again.py` needs them.
    """

    title: str
    prompts: PromptSet
    rules: Rules
    sampling: Sampling
    folder: Path
    keep: str = "none"
    on_picture: Callable[[int, Image.Image | None], None] = unseen
    name: str = ""
    loras: Sequence[Mapping] = ()
    protocol: Mapping[str, Any] | None = None  # what the report says of the one that is followed
    loaded: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        Kept(self.keep)

    @property
    def run(self) -> str:
        return self.name or self.folder.name

    @property
    def texts(self) -> list[str]:
        """What is encoded for its pictures, each once."""
        told = (text for each in self.prompts for text in (each.text, each.negative))
        return list(dict.fromkeys(told))

    def identity(self) -> dict:
        """What the rows of its folder have in common, but the model."""
        shape = self.prompts.shape
        read = {} if shape == TABLE else {"shape of the prompt file": shape.model_dump(mode="json")}
        return (
            self.rules.identity()
            | read
            | {
                "prompt file": self.prompts.sha256,
                "row defaults": asdict(self.prompts.defaults),
                "sampling": {
                    name: value
                    for name, value in asdict(self.sampling).items()
                    if name != "guidance"
                },
            }
        )

    def store(self, more: Mapping, **told) -> Store:
        """The folder's store of rows, for this identity and `more` of it, such as the model's."""
        names = {"prompt file": self.prompts.file}
        return Store(self.folder / STORE, self.identity() | more, names, rules=self.rules, **told)

    def done(self) -> int:
        """How many of the pictures were looked at, as far as that shows without a model."""
        if not (self.folder / STORE).exists():
            return 0
        with self.store({}, partial=True) as store:
            store.select((prompt.key, stamp(prompt)) for prompt in self.prompts)
            return len(self.prompts) - sum(1 for _ in store.missing(again=True))

    def check(self) -> None:
        """Raise StoreError for another audit's folder, as far as that shows without a model.

        Raises OSError where there can't be such a folder.
        """
        try:
            if (self.folder / STORE).exists():
                with self.store({}, partial=True):
                    return
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise worded(error, self.folder) from error


def stamp(prompt: Prompt) -> str:
    """What a row was made of, beside its key: another prompt, seed or size is another row."""
    return repr(prompt)
