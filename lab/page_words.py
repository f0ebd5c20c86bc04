"""The words of the HTML pages: what code and templates hand to `options/language.py`.

A text is a literal where it stands. That of a column of an audit is found too, and that of an
`amount` in a file that says anything.
"""

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from babel.messages.catalog import Catalog
from jinja2 import Environment, nodes

from . import catalogue

# which arguments of a call are texts; of the last two one and many are forms of one text
CALLS = {
    "say": (0,),
    "said": (0,),
    "phrase": (0,),
    "Counted": (1,),
    "say_many": (0, 1),
    "phrase_many": (0, 1),
}
CONTEXT = "a page"  # a word on a node may need another translation
HOUSE = ("lab", "tests")  # what ships no page
Text: TypeAlias = "str | tuple[str, str]"


def texts(root: Path) -> Iterator[tuple[Text, str]]:
    """(text, file) of all that pages say; a text with two forms is (one, many)."""
    rooms = sorted(
        path.parent for path in root.glob("*/__init__.py") if path.parent.name not in HOUSE
    )
    for room in rooms:
        for file in sorted([*room.rglob("*.py"), *room.rglob("*.j2")]):
            source, place = file.read_text(encoding="utf-8"), file.relative_to(root).as_posix()
            found = in_code(source) if file.suffix == ".py" else in_template(source)
            yield from ((text, place) for text in found)


def in_code(source: str) -> Iterator[Text]:
    """The texts of a Python file, in the order in which they stand."""
    if not any(f"{name}(" in source for name in CALLS):
        return
    calls = [each for each in ast.walk(ast.parse(source)) if isinstance(each, ast.Call)]
    for call in sorted(calls, key=lambda each: (each.lineno, each.col_offset)):
        name = call.func.id if isinstance(call.func, ast.Name) else ""
        given = [each.value if isinstance(each, ast.Constant) else None for each in call.args]
        if name == "amount" and "options.language import" in source and len(given) > 1:
            noun, many = given[1], given[2] if len(given) > 2 else f"{given[1]}s"
            if noun:  # a literal
                yield f"{{count}} {noun}", f"{{count}} {many}"
        yield from _of_call(name, given)


def in_template(source: str) -> Iterator[Text]:
    """The texts of a template."""
    for call in Environment().parse(source).find_all(nodes.Call):
        name = call.node.name if isinstance(call.node, nodes.Name) else ""
        given = [each.value if isinstance(each, nodes.Const) else None for each in call.args]
        yield from _of_call(name, given)


def _of_call(name: str, given: list[Any]) -> Iterator[Text]:
    wanted = [given[place] for place in CALLS.get(name, ()) if place < len(given)]
    if wanted and all(isinstance(each, str) for each in wanted):
        yield wanted[0] if len(wanted) == 1 else (wanted[0], wanted[1])


def made(catalog: Catalog, texts: Iterable[Text]) -> dict[str, Any]:
    """`pages.json` of a language: the rule for its plurals, and what it has for each text."""
    found = {}
    for text in texts:
        message = catalog.get(text, CONTEXT)
        if message and catalogue.is_usable(message):
            found[text if isinstance(text, str) else text[0]] = message.string
    return {"plural": catalog.plural_expr, "texts": found}
