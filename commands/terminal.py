"""What the verbs show while they work: one kind of bar."""

from weakref import WeakSet

from tqdm import tqdm

_bars: WeakSet[tqdm] = WeakSet()


class Bar(tqdm):
    """A bar on stderr that is told how far it is, and says how long is left.

    Call `bar(done, total)`, or `update(n)` where the total was given. `initial` is what an earlier
    run did: it counts for no rate.
    """

    def __init__(self, what: str, unit: str, total: int | None = None, **more: bool | int):
        shown = more.pop("shown", True)
        super().__init__(
            desc=what, total=total, unit=f" {unit}", disable=not shown, dynamic_ncols=True, **more
        )
        _bars.add(self)

    def __call__(self, done: int, total: int) -> None:
        if not self.disable:
            self.total = total
            self.update(done - self.n)

    def add(self, count: int, total: int) -> None:
        """So much more is done; a few more than the total are the total."""
        self(min(self.n + count, total), total)


def close_bars() -> None:
    """End the bars that something ended early, so that what is said next stands last."""
    for bar in list(_bars):
        bar.close()
