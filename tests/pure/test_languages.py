"""Every language has words for every node, input and output that English has, and for no other."""

import json
import re

import pytest
from modular_safety_lora.lab.server import PACK

PAGES = ("MSL_LoadSafetyLora", "MSL_LoadTaskLora", "MSL_ModularMerge", "MSL_NudityAudit")
LANGUAGES = sorted(path.parent.name for path in PACK.glob("locales/*/nodeDefs.json"))


def words(language: str) -> dict:
    return json.loads((PACK / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))


def missing_words(english: dict, other: dict, place: str = "") -> list[str]:
    """Where two trees of words differ: a key that one of them has alone, or an empty text."""
    found = [f"{place}/{key}" for key in english.keys() ^ other.keys()]
    for key in english.keys() & other.keys():
        one, two = english[key], other[key]
        if isinstance(one, dict) and isinstance(two, dict):
            found += missing_words(one, two, f"{place}/{key}")
        elif isinstance(one, dict) or isinstance(two, dict) or (one and not two):
            found.append(f"{place}/{key}")
    return sorted(found)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_has_all_the_words_and_no_others(language):
    assert not missing_words(words("en"), words(language))


def test_a_word_that_is_missing_empty_or_left_over_is_found():
    english = words("en")
    node = next(iter(english))
    for change in (
        lambda tree: tree.pop(node),
        lambda tree: tree[node].pop("description"),
        lambda tree: tree[node].update(display_name=""),
        lambda tree: tree[node]["inputs"].update(gone={"name": "gone", "tooltip": "x"}),
    ):
        other = json.loads(json.dumps(english))
        change(other)
        assert missing_words(english, other)


@pytest.mark.parametrize("file", sorted(PACK.glob("workflows/*.json")), ids=lambda file: file.stem)
def test_no_workflow_holds_a_socket_to_its_english_name(file):
    """A `label` comes before the language's own word in the graph."""
    nodes = json.loads(file.read_text(encoding="utf-8"))["nodes"]
    sockets = [each for node in nodes for each in node.get("outputs", []) + node.get("inputs", [])]
    assert sockets and not [each for each in sockets if each.get("label") == each["name"]]


@pytest.mark.parametrize("node", PAGES)
@pytest.mark.parametrize("language", [each for each in LANGUAGES if each != "en"])
def test_the_help_pages_of_the_main_job_say_the_same_in_a_language(language, node):
    """The same headings, inputs and code; the node's own name on top."""
    docs = PACK / "web" / "docs"
    english = (docs / f"{node}.md").read_text(encoding="utf-8")
    page = (docs / node / f"{language}.md").read_text(encoding="utf-8")
    assert page.splitlines()[0] == f"# {words(language)[node]['display_name']}"
    assert len(re.findall(r"^#+ ", page, re.M)) == len(re.findall(r"^#+ ", english, re.M))
    assert _named(page) == _named(english) and "<!--" not in page
    assert page != english


def _named(page: str) -> set[str]:
    """The inputs that the lists name."""
    return set(re.findall(r"^- \*\*`([a-z0-9_]+)`", page, re.M))
