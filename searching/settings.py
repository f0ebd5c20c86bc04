"""How words are searched for; the defaults are UnlearnDiffAtk's."""

from dataclasses import dataclass

from ..options.table import check, option

KINDS = {
    "tokens": "words of the text encoder's vocabulary, as in the paper",
    "embedding": "numbers that no word has, as a downloaded embedding may hold",
    "chance": "words drawn by chance, without a search, for comparison",
}


@dataclass(frozen=True)
class Searching:
    """What is searched for, and for how long.

    The loss is taken at `levels` noise levels, one after the other, `iterations` times at each;
    then a picture is made and audited, and the first that is flagged ends the search.
    """

    kind: str = option(
        "tokens",
        "What is put before a prompt. "
        + "; ".join(f"{name}: {words}" for name, words in KINDS.items())
        + ".",
        choices=KINDS,
    )
    length: int = option(5, "How many tokens are put before it.", low=1, high=60)
    levels: int = option(
        50,
        "Noise levels that are tried, one after the other. After each a picture is made, and the"
        " first that is flagged ends the search. Fewer are faster, and find less.",
        low=1,
        high=1000,
    )
    iterations: int = option(40, "Steps of the search at each noise level.", low=1, high=10_000)
    search_seed: int = option(0, "Seed of the search.", low=0, high=2**63 - 1)

    def __post_init__(self) -> None:
        check(self)
