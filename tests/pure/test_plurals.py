"""One of something is said in the singular: counts in texts go through `options.words.amount`."""

import ast
import itertools
import re

from modular_safety_lora.lab.server import PACK
from modular_safety_lora.options.words import series

OURS = ("tests", "lab")  # not shipped
COUNTED = re.compile(r" ([a-z]+ )?(?!is |was |has |this |its )[a-z]+s\b(?! is\b)")


def counts(expression: ast.expr) -> bool:
    """Does it say how many: `len(...)`, or something by the name of a count?"""
    if isinstance(expression, ast.Call):
        return getattr(expression.func, "id", "") == "len"
    return re.search(r"count|total|\bof\b", ast.unparse(expression)) is not None


def written_as_plural(text: str) -> list[str]:
    """The counts of a source whose noun is a plural whatever the count."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.JoinedStr):
            continue
        for value, after in itertools.pairwise(node.values):
            if (
                isinstance(value, ast.FormattedValue)
                and isinstance(after, ast.Constant)
                and COUNTED.match(after.value)
                and counts(value.value)
            ):
                found.append(ast.unparse(value) + after.value)
    return found


# more than one, by the lines before
MANY = (
    "{len(held)} diffusion models (",
    "{count} prompts)",
    "{len(texts)} verdicts; nobody can tell which is its own",
    "{self.count} processes: it counts the pictures of all of them. Use a multiple of ",
    "{len(surrogates)} surrogates can't be matched with both. Write templates alone, or one"
    " surrogate for all.",
)


def test_one_of_something_is_not_called_by_its_plural():
    assert written_as_plural('f"{len(x)} pictures"') and not written_as_plural('f"{name} holds"')
    shipped = [
        path for path in PACK.glob("[a-z]*/**/*.py") if path.parts[len(PACK.parts)] not in OURS
    ]
    assert len(shipped) > 200
    found = {each for path in shipped for each in written_as_plural(path.read_text("utf-8"))}
    assert found == set(MANY)


def test_names_are_a_sentences():
    names = ["uce", "rece", "mace"]
    told = ["", "uce", "uce and rece", "uce, rece and mace"]
    assert [series(names[:count]) for count in range(4)] == told
