"""The rows of a job in its folder: one process keeps them, whoever makes them."""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from PIL import Image

from ..audit.folders.store import Store
from ..storage.owned import owned
from ..storage.whole import whole
from .again import remember
from .embedded import KEY, check_embeddings, of_prompt
from .job import STORE, AuditJob, stamp
from .prompt_set import Prompt
from .results import write_report

logger = logging.getLogger(__name__)


class Made(NamedTuple):
    """What came of a prompt: its row, the PNG to keep, the picture with what counts blurred."""

    row: dict
    png: bytes | None = None
    shown: Image.Image | None = None


class Rows:
    """A store of a job's rows, and `todo`, the prompts that have none yet."""

    def __init__(self, store: Store, job: AuditJob, holds: Mapping):
        self.store, self.job, self.holds = store, job, holds
        store.select((prompt.key, stamp(prompt)) for prompt in job.prompts)
        missing = {key for key, _ in store.missing(again=True)}
        self.todo = [prompt for prompt in job.prompts if prompt.key in missing]
        self.done = len(job.prompts) - len(self.todo)
        job.on_picture(self.done, None)

    def add(self, prompt: Prompt, made: Made) -> None:
        """Keep what came of a prompt, its picture first."""
        if made.png:
            with whole(self.job.folder / made.row["picture"]) as part:
                part.write_bytes(made.png)
        if "unreadable" in made.row:
            logger.warning("%s: %s", prompt.key, made.row["unreadable"])
        named = of_prompt(self.holds.get(KEY, {}), prompt)
        row = made.row if named is None else made.row | {KEY: named}
        self.store.add([(prompt.key, stamp(prompt), row)])
        self.done += 1
        self.job.on_picture(self.done, made.shown)

    def report(self) -> dict:
        """Write the report; its summary."""
        remember(self.job, self.holds)
        identity = self.job.identity() | {"model": self.holds["model"]}
        return write_report(self.store, self.job, identity, self.holds["of"])


@contextlib.contextmanager
def kept(job: AuditJob, holds: Mapping) -> Iterator[Rows]:
    """The rows of a job whose pictures are made by the model that `holds` describes.

    Nobody else writes to its folder meanwhile. Raises InUse, and StoreError for another's folder.
    """
    with alone_in(job):
        check_embeddings(job, holds.get(KEY, {}))
        with job.store({"model": holds["model"]}, untold=holds["untold"]) as store:
            yield Rows(store, job, holds)


@contextlib.contextmanager
def alone_in(job: AuditJob) -> Iterator[None]:
    """A block in which nobody else writes to the job's folder. Raises InUse."""
    with owned(job.folder / STORE), owned(job.folder / "report"):
        yield


def asked(prompt: Prompt) -> dict:
    """What a row says of its prompt, whatever came of it."""
    row = {
        "key": prompt.key,
        "prompt": prompt.text,
        "negative_prompt": prompt.negative,
        "seed": prompt.seed,
        "guidance": prompt.guidance,
        "width": prompt.width,
        "height": prompt.height,
        "groups": list(prompt.categories),
    }
    several = {"prompt_key": prompt.prompt_key, "number": prompt.number}
    return row | several if prompt.prompt_key else row
