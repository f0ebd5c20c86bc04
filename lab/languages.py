"""The files of each language, made of its catalogue and the English ones: pure, without ComfyUI.

A language is a folder in `locales/` with its `words.po`. Made of it: the words of the nodes, the
help pages of the main job, the words of the scripts in `web/` and of the HTML pages, and README's
list of languages.
What is not translated, or of an English that changed, is English.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from babel import Locale
from babel.messages.catalog import Catalog
from babel.messages.extract import extract

from ..options.language import FILE
from . import catalogue, help_pages, page_words

# The pages that are translated: what the main job needs.
PAGES = ("MSL_LoadSafetyLora", "MSL_LoadTaskLora", "MSL_ModularMerge", "MSL_NudityAudit")
# One English word that needs two translations, by its place.
CONTEXTS = {
    "MSL_AuditPromptSet/inputs/prompts/name": "a file",
    "MSL_ExtractSafetyLora/inputs/keep/name": "a share",
    "MSL_SealSafetyLora/outputs/0/name": "a single one",
    "MSL_TrainSafetyLora/outputs/0/name": "a single one",
    "MSL_TrainTaskLora/outputs/0/name": "a single one",
    "nodeCategories/safety": "a folder of the menu",
}
CHOICE = "a choice"  # the context of all choices: they may be named as an input or output is
NOTE = (
    "*This translation was not reviewed by a native speaker; where they differ, the English page"
    " holds.*"
)
LISTED = re.compile(r"(<!-- languages: python dev.py generate -->\n).*?(<!-- end -->)", re.DOTALL)


def spoken(root: Path) -> list[str]:
    """The languages of the pack beside English, by their folders."""
    folders = [path for path in (root / "locales").iterdir() if path.is_dir()]
    return sorted(path.name for path in folders if path.name != "en")


def template(root: Path) -> Catalog:
    """Every English text that is translated, with the places where it stands."""
    found = Catalog()
    for text, place, context in _texts(root):
        found.add(text, locations=[(place, None)], context=context)
    return found


def catalogues(root: Path) -> dict[str, Catalog]:
    """The catalogue of each language, brought to the English of today."""
    english = template(root)
    return {
        language: catalogue.read(root / "locales" / language / "words.po", english)
        for language in spoken(root)
    }


def made(root: Path) -> dict[Path, str]:
    """What each file should hold that is made of catalogues and English files."""
    found, said = catalogues(root), [text for text, _ in page_words.texts(root)]
    files = {root / "README.md": _listed(_read(root / "README.md"), list(found))}
    for language, catalog in found.items():
        say, folder = catalogue.speaker(catalog), root / "locales" / language
        files[folder / "words.po"] = catalogue.written(catalog, language)
        trees = {name: _nodes(tree, say) for name, tree in _english(root).items()}
        files |= {folder / f"{name}.json": _as_json(tree) for name, tree in trees.items()}
        files[folder / FILE] = _as_json(page_words.made(catalog, said))
        for node in PAGES:
            english = _read(_page(root, node))
            if all(say(text) == text for text in help_pages.texts(english)):
                continue  # the host shows the English page
            nodes = _english(root)["nodeDefs"], trees["nodeDefs"]
            faces = _faces(*(each.get(node, {}) for each in nodes))
            page = f"{help_pages.translated(english, say, faces)}\n{say(NOTE)}\n"
            files[root / "web" / "docs" / node / f"{language}.md"] = page
    return files | {root / "web" / "words.js": _scripts(root, found)}


def left_over(root: Path, files: dict[Path, str]) -> list[Path]:
    """Translated pages that nothing makes any more."""
    return sorted(set(root.glob("web/docs/*/*.md")) - files.keys())


def report(root: Path) -> str:
    """For each language, how many texts fall back to English, and the first of them."""
    lines = []
    for language, catalog in catalogues(root).items():
        texts = [catalogue.english(message) for message in catalogue.unusable(catalog)]
        stale = sum(message.fuzzy for message in catalogue.unusable(catalog))
        first = "".join(f"\n    {text[:80]}" for text in texts[:3])
        if texts:
            missing = len(texts) - stale
            lines.append(f"{language}: {missing} not translated, {stale} of changed English{first}")
    return "\n".join(lines)


def _texts(root: Path) -> Iterator[tuple[page_words.Text, str, str | None]]:
    """(text, place, context) of all that is translated."""
    for tree in _english(root).values():
        yield from ((text, place, CONTEXTS.get(place)) for place, text in _leaves(tree))
    for node in PAGES:
        page = _page(root, node)
        place = page.relative_to(root).as_posix()
        yield from ((text, place, None) for text in help_pages.texts(_read(page)))
    yield NOTE, "lab/languages.py", None
    yield from ((text, "locales/en/choices.json", CHOICE) for text in _choices(root))
    yield from ((text, place, None) for text, place in _script_texts(root))
    yield from ((text, place, page_words.CONTEXT) for text, place in page_words.texts(root))


def _script_texts(root: Path) -> Iterator[tuple[str, str]]:
    """What the scripts of `web/` hand to their function `say`."""
    for script in sorted((root / "web").glob("*.js")):
        with script.open("rb") as file:
            for _, text, _, _ in extract("javascript", file, keywords={"say": None}):
                yield str(text), script.relative_to(root).as_posix()


def _scripts(root: Path, found: dict[str, Catalog]) -> str:
    """The module that gives scripts their words: language, English text, translation.

    A choice keeps its English name behind it: texts, links and saved workflows hold that one.
    """
    texts = [text for text, _ in _script_texts(root)]
    words = {
        language: {text: catalogue.speaker(catalog)(text) for text in texts}
        for language, catalog in found.items()
    }
    named = {
        language: {
            text: f"{say(text, CHOICE)} ({text})"
            for text in _choices(root)
            if say(text, CHOICE) != text
        }
        for language, say in zip(found, map(catalogue.speaker, found.values()), strict=True)
    }
    made = f"export const WORDS = {_as_json(words)}export const CHOICES = {_as_json(named)}"
    return f"// Made by `python dev.py generate`.\n{made}"


def _choices(root: Path) -> list[str]:
    return json.loads(_read(root / "locales" / "en" / "choices.json"))


def _faces(english: dict, said: dict) -> dict[tuple[str, str], str]:
    """The name on the face of the node of each input and output, by its id and English words."""
    return {
        (each["name"], each["tooltip"]): said[kind][place]["name"]
        for kind in ("inputs", "outputs")
        for place, each in english.get(kind, {}).items()
    }


def _leaves(tree: dict, place: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{place}{key}/")
        else:
            yield f"{place}{key}", value


def _nodes(tree: dict, say: Callable[..., str], place: str = "") -> dict:
    """The words of the nodes in a language: the same tree, with other leaves."""
    return {
        key: _nodes(value, say, f"{place}{key}/")
        if isinstance(value, dict)
        else say(value, CONTEXTS.get(f"{place}{key}"))
        for key, value in tree.items()
    }


def _listed(readme: str, languages: list[str]) -> str:
    """README with the list of languages between its marks."""
    names = sorted(str(Locale.parse(language, sep="-").english_name) for language in languages)
    text = f"English, {', '.join(names[:-1])} and {names[-1]}.\n"
    return LISTED.sub(lambda marks: marks[1] + text + marks[2], readme)


def _english(root: Path) -> dict:
    """What the host serves of a language, by the name of the file."""
    files = sorted((root / "locales" / "en").glob("*.json"))
    return {file.stem: json.loads(_read(file)) for file in files if file.stem != "choices"}


def _page(root: Path, node: str) -> Path:
    return root / "web" / "docs" / f"{node}.md"


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def _as_json(value: dict) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
