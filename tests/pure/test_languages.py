"""Every language has words for every node, input and output that English has, and for no other."""

import json

import pytest
from modular_safety_lora.lab.server import PACK

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
