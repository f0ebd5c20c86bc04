"""Every language is what its catalogue gives, says no less than English, and is no copy of it."""

import json
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from modular_safety_lora.lab import catalogue, help_pages, languages
from modular_safety_lora.lab.server import PACK

CATALOGUES = languages.catalogues(PACK)
MOST_COPIED = 0.05  # of the texts of several words


def stale(root: Path) -> list[str]:
    """The files that are not what the catalogues give."""
    files = languages.made(root)
    wrong = [
        path
        for path, text in files.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    return [path.relative_to(root).as_posix() for path in wrong + languages.left_over(root, files)]


def test_every_file_is_what_the_catalogues_give():
    assert stale(PACK) == [], "run `python dev.py generate`"


@pytest.mark.long
def test_every_language_is_complete_before_a_version():
    """What is listed falls back to English: translate it in `locales/<language>/words.po`."""
    assert languages.report(PACK) == ""


@pytest.mark.parametrize("language", CATALOGUES)
def test_a_translation_keeps_code_numbers_and_names_of_files(language):
    assert list(catalogue.lost(CATALOGUES[language])) == []


@pytest.mark.parametrize("language", CATALOGUES)
def test_a_language_is_no_copy_of_english(language):
    assert catalogue.copied(CATALOGUES[language]) <= MOST_COPIED


PLACE, NODE = "locales/it/nodeDefs.json", "MSL_Any"
NODES = {
    NODE: {"display_name": "Any node", "description": "Does what any does.", "outputs": {}},
    languages.PAGES[0]: {
        "inputs": {"one": {"name": "one", "tooltip": "The first."}},
        "outputs": {"0": {"name": "one", "tooltip": "What comes out."}},
    },
}
PAGE = "# Any node\n\nThere is no strength.\n\n<!-- inputs: made -->\n- **`one`**: The first.\n"
CHOICES = ["any", "one"]
README = "Read me.\n<!-- languages: python dev.py generate -->\n<!-- end -->\nNow.\n"


def make(root: Path) -> None:
    for path, text in languages.made(root).items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


@pytest.fixture
def root(tmp_path) -> Path:
    """A small pack in English and Italian, complete."""
    for folder in ("locales/en", "locales/it", "locales/pt-BR", "web/docs"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "locales" / "en" / "nodeDefs.json").write_text(json.dumps(NODES))
    (tmp_path / "locales" / "en" / "choices.json").write_text(json.dumps(CHOICES))
    (tmp_path / "locales" / "en" / "main.json").write_text('{"nodeCategories": {"any": "any"}}')
    for node in languages.PAGES:
        (tmp_path / "web" / "docs" / f"{node}.md").write_text(PAGE)
    (tmp_path / "web" / "any.js").write_text('button.label = say("Show # more inputs");\n')
    (tmp_path / "README.md").write_text(README)
    for language, catalog in languages.catalogues(tmp_path).items():
        for message in catalog:
            kind = f"{message.context} " if message.context else ""
            message.string = message.id and f"{language} {kind}{message.id}"
        text = catalogue.written(catalog, language)
        (tmp_path / "locales" / language / "words.po").write_text(text)
    make(tmp_path)
    return tmp_path


def read(root: Path, name: str) -> str:
    return (root / name).read_text(encoding="utf-8")


def replace(root: Path, name: str, old: str, new: str) -> None:
    assert old in read(root, name)
    (root / name).write_text(read(root, name).replace(old, new), encoding="utf-8")


def test_a_complete_language_says_all_in_its_own_words(root):
    assert stale(root) == [] and languages.report(root) == ""
    node = json.loads(read(root, PLACE))[NODE]
    assert node["display_name"] == "it Any node" and node["description"].startswith("it Does")
    page = read(root, f"web/docs/{languages.PAGES[0]}/it.md")
    assert page.startswith(
        "# it Any node\n\nit There is no strength.\n\n- **it one** `one`: it The first."
    ), "under its name on the face, and its own"
    assert page.endswith(f"\n\nit {languages.NOTE}\n")
    assert '"Show # more inputs": "it Show # more inputs"' in read(root, "web/words.js")
    assert json.loads(read(root, "locales/it/main.json"))["nodeCategories"] == {"any": "it any"}
    named = read(root, "web/words.js").partition("export const CHOICES = ")[2]
    assert json.loads(named)["it"] == {
        "any": "it a choice any (any)",
        "one": "it a choice one (one)",
    }, "apart from an input of that name, and with the English word"
    assert "-->\nEnglish, Italian and Portuguese (Brazil).\n<!-- end" in read(root, "README.md")


@pytest.mark.parametrize(
    "file", [PLACE, "locales/it/words.po", f"web/docs/{languages.PAGES[1]}/it.md", "web/words.js"]
)
def test_a_file_that_was_edited_by_hand_is_seen(root, file):
    (root / file).write_text(f"{read(root, file)}\n", encoding="utf-8")
    assert stale(root) == [file]


def test_a_page_that_nothing_makes_is_seen(root):
    page = "web/docs/MSL_LoadTaskLora/xx.md"
    (root / page).touch()
    assert stale(root) == [page]


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("locales/en/nodeDefs.json", "Does what any does.", "Does what any node does."),
        ("web/any.js", "Show # more inputs", "Show # more of its inputs"),
        (f"web/docs/{languages.PAGES[2]}.md", "There is no strength.", "There is no strength yet."),
    ],
)
def test_a_text_whose_english_changed_falls_back_to_it_and_is_told(root, file, old, new):
    """What did not change stays as it is; the old translation is kept for the translator."""
    replace(root, file, old, new)
    make(root)
    assert stale(root) == []
    made = {path: path.read_text(encoding="utf-8") for path in languages.made(root)}
    shown = [text for path, text in made.items() if path.suffix != ".po" and new in text]
    assert shown and not [text for text in shown if f"it {new}" in text]
    assert json.loads(read(root, PLACE))[NODE]["display_name"] == "it Any node"
    words = read(root, "locales/it/words.po")
    assert f'#, fuzzy\nmsgid "{new}"\nmsgstr "it {old}"\n' in words
    assert f"it: 0 not translated, 1 of changed English\n    {new}\n" in languages.report(root)


def test_a_text_that_is_gone_leaves_the_catalogue(root):
    (root / "locales" / "en" / "nodeDefs.json").write_text("{}")
    make(root)
    assert json.loads(read(root, PLACE)) == {}
    assert "Does what any does." not in read(root, "locales/it/words.po")
    assert languages.report(root) == ""


def test_a_language_is_a_folder(root):
    """All of it is made: first in English, then what its catalogue holds."""
    (root / "locales" / "fr").mkdir()
    make(root)
    assert stale(root) == [] and not [*root.glob("web/docs/*/fr.md")], "those would be English"
    words = 'msgid "Any node"\nmsgstr "'
    replace(root, "locales/fr/words.po", words, f"{words}Un nœud")
    make(root)
    node = json.loads(read(root, "locales/fr/nodeDefs.json"))[NODE]
    assert node == NODES[NODE] | {"display_name": "Un nœud"}
    assert read(root, f"web/docs/{languages.PAGES[0]}/fr.md").startswith("# Un nœud\n\nThere is")
    assert '"fr": {' in read(root, "web/words.js")
    assert "English, French, Italian and" in read(root, "README.md")
    assert languages.report(root).startswith("fr: 10 not translated, 0 of changed English")


def test_a_catalogue_that_is_damaged_is_refused(root):
    replace(root, "locales/it/words.po", 'msgstr "it Any node"', "<<<<<<< HEAD")
    with pytest.raises(Exception, match="misformatted"):
        languages.made(root)


FIXED = "Reads `model` of {name} from docs/threat-model.md, # times, to 0.85 (FACE_FEMALE=0.4)."


@pytest.mark.parametrize(
    "fixed", ["`model`", "{name}", "docs/threat-model.md", "#", "0.85", "FACE_FEMALE=0.4"]
)
def test_a_translation_that_lacks_what_must_stay_is_seen(fixed):
    catalog = Catalog()
    catalog.add(FIXED, FIXED)
    assert list(catalogue.lost(catalog)) == []
    catalog.get(FIXED).string = FIXED.replace(fixed, "")
    assert list(catalogue.lost(catalog)) == [(FIXED, {fixed})]


def test_a_copy_of_english_is_seen():
    catalog = Catalog()
    for number in range(20):
        text = f"Text number {number}"
        catalog.add(text, text if number < 2 else f"Testo {number}")
    catalog.add("CLIP", "CLIP")
    assert catalogue.copied(catalog) == 0.1 > MOST_COPIED


def test_a_page_is_translated_by_its_paragraphs():
    page = (
        "# One\n\nTwo goes\non.\n\n    code = 1\n\n<!-- inputs: made -->\n**List**\n\n"
        "- **`model`** (`1.0`): Three\n- four\n  goes on\n<!-- end -->\n\nlast\n"
    )
    texts = ["One", "Two goes on.", "**List**", "Three", "four goes on", "last"]
    assert help_pages.texts(page) == texts
    assert help_pages.translated(page, str.upper) == (
        "# ONE\n\nTWO GOES ON.\n\n    code = 1\n\n**LIST**\n\n"
        "- **`model`** (`1.0`): THREE\n- FOUR GOES ON\n\nLAST\n"
    )


@pytest.mark.parametrize("file", sorted(PACK.glob("workflows/*.json")), ids=lambda file: file.stem)
def test_no_workflow_holds_a_socket_to_its_english_name(file):
    """A `label` comes before the language's own word in the graph."""
    nodes = json.loads(file.read_text(encoding="utf-8"))["nodes"]
    sockets = [each for node in nodes for each in node.get("outputs", []) + node.get("inputs", [])]
    assert sockets and not [each for each in sockets if each.get("label") == each["name"]]
