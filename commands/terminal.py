"""What the verbs show while they work: one kind of bar."""

from tqdm import tqdm


class Bar(tqdm):
    """A bar on stderr that is told how far it is: `bar(done, total)`, or `update(n)` where the
    total is not known.
    """

    def __init__(self, what: str, unit: str, total: int | None = None, shown: bool = True):
        super().__init__(
            desc=what, total=total, unit=f" {unit}", disable=not shown, dynamic_ncols=True
        )

    def __call__(self, done: int, total: int) -> None:
        if not self.disable:
            self.total = total
            self.update(done - self.n)
