"""What is known of a run before a model is loaded, and its name, held until it ends."""

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ...drawing.figures import library
from ...storage.owned import owned
from ..settings import Settings
from .adapters import peft
from .optimizers import optimizer_class
from .processes import ALONE, Share

SUFFIX = ".safetensors"


@contextmanager
def starting(
    output: Path,
    settings: Settings,
    *,
    resume: bool = True,
    share: Share = ALONE,
    beside: Sequence[Path] = (),
) -> Iterator[None]:
    """A block that may write `output` and `beside`, and nobody else meanwhile.

    It may stand in another of the same run. Raises, in all processes of the run: ValueError for a
    name of another kind and for a package that is missing, FileExistsError for files that are
    there, unless the run goes on from a checkpoint, InUse while another run writes to the name.
    """
    library()  # nothing is found missing after hours
    peft()
    optimizer_class(settings)
    with contextlib.ExitStack() as held:
        fault: Exception | None = None
        if share.is_main:
            try:
                check_suffix(output)
                held.enter_context(owned(output))
                _check_free(output, resume, beside)
            except (ValueError, OSError, RuntimeError) as error:
                fault = error
        fault = next(filter(None, share.gather(fault)), None)
        if fault is not None:
            raise fault
        yield


def checkpoint_of(output: Path) -> Path:
    """The checkpoint beside an output, under a name that no loader lists."""
    return output.with_suffix(".resume")


def check_suffix(output: Path) -> None:
    """Raise ValueError for an output whose chart, report or checkpoint would be itself."""
    if output.suffix != SUFFIX:
        raise ValueError(f"{output}: the name must end in {SUFFIX}.")


def _check_free(output: Path, resume: bool, beside: Sequence[Path]) -> None:
    """Raise FileExistsError for a file that no unfinished run with a checkpoint left here."""
    going_on = resume and checkpoint_of(output).exists()
    if output.exists() and not going_on:
        finished = " That run is finished: there is no checkpoint to resume from." if resume else ""
        raise FileExistsError(
            f"{output} exists already.{finished} Choose another name, or delete it."
        )
    there = [path for path in beside if path.exists() and not output.exists()]
    if there:
        raise FileExistsError(
            f"{there[0]} exists already, and goes with {output.name}. Choose another name, or move"
            " it."
        )
