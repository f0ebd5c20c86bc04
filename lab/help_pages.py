"""A help page by its paragraphs: what there is to translate, and the page in another language."""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from markdown_it import MarkdownIt

# What stands before an input's or an output's own words in the lists of a page.
NAMED = re.compile(r"\*\*`([^`]+)`\*\*(?: \(`[^`]*`\))?: ")


def texts(page: str) -> list[str]:
    """The headings, paragraphs and list items of a page, each on one line. Code is left out."""
    return [text for _, _, _, text in _paragraphs(page)]


def translated(
    page: str,
    say: Callable[[str], str],
    faces: Mapping[tuple[str, str], str] = MappingProxyType({}),
) -> str:
    """The page with each paragraph as `say` has it; without the marks of what is generated.

    An input or output stands under its name on the node's face, `faces` by (id, words), and its id.
    """
    lines = page.splitlines()
    for start, end, before, text in reversed(_paragraphs(page)):
        lines[start:end] = [_on_face(before, text, faces) + say(text)]
    return "\n".join(line for line in lines if not line.startswith("<!--")) + "\n"


def _on_face(before: str, text: str, faces: Mapping[tuple[str, str], str]) -> str:
    """What stands before the words of an input: **`id`** as **name on the face** `id`."""
    found = NAMED.search(before)
    face = faces.get((found[1], text)) if found else None
    if not found or face in (None, found[1]):
        return before
    return before.replace(f"**`{found[1]}`**", f"**{face}** `{found[1]}`", 1)


def _paragraphs(page: str) -> list[tuple[int, int, str, str]]:
    """(first line, line after the last, what stands before the text, text) of each."""
    lines, found = page.splitlines(), []
    for token in MarkdownIt().parse(page):
        if token.type == "inline" and token.map:
            start, end = token.map
            first = token.content.splitlines()[0]
            text = re.sub(r"[ \t]*\n[ \t]*", " ", token.content)
            name = NAMED.match(text)
            named = name[0] if name else ""
            before = lines[start].rstrip().removesuffix(first)
            found.append((start, end, before + named, text.removeprefix(named)))
    return found
