"""The documents: what they link to is there, and the command lines they show are understood."""

import argparse
import importlib
import re
import shlex

import pytest
from modular_safety_lora.commands import VERBS
from modular_safety_lora.lab.server import PACK
from modular_safety_lora.training.objectives import METHODS

PAGES = [PACK / "README.md", *sorted(PACK.glob("docs/*.md")), *sorted(PACK.glob("web/docs/*.md"))]
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)")
COMMAND = re.compile(r"(?:-m modular_safety_lora|custom_nodes/modular-safety-lora) ([a-z][a-z-]*)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(PACK).as_posix())
def test_what_a_page_links_to_is_there_and_its_verbs_exist(page):
    text = page.read_text(encoding="utf-8")
    assert [link for link in LINK.findall(text) if not (page.parent / link).exists()] == []
    assert set(COMMAND.findall(text)) <= VERBS.keys()
    assert [
        name for name in re.findall(r"`(tests/[\w/]+\.py)`", text) if not (PACK / name).exists()
    ] == []
    shown = re.findall(r"-m modular_safety_lora\.([\w.]+)", text)
    files = [PACK / name.replace(".", "/") for name in shown]
    assert [
        str(path) for path in files if not (path.with_suffix(".py").exists() or path.is_dir())
    ] == []


def test_the_index_names_every_page():
    index = (PACK / "docs" / "README.md").read_text(encoding="utf-8")
    assert {path.name for path in PACK.glob("docs/*.md")} - {"README.md"} == set(
        LINK.findall(index)
    )


MADE = re.compile(r"<!-- (?!end)[^>]*-->.*?<!-- end[^>]*-->", re.DOTALL)
MOST = 10_600  # words written by hand, in all pages together


def words_by_hand(text: str) -> int:
    """The words of a page, without what is made between its marks."""
    return sum(bool(re.search(r"\w", word)) for word in MADE.sub("", text).split())


def test_what_is_generated_is_not_counted():
    page = "Two words - .\n<!-- list: made -->\nmany more\n<!-- end of list -->\nand three here"
    assert words_by_hand(page) == 5


def test_the_pages_stay_short_enough_to_be_read():
    written = [page for page in PAGES if page.name != "walk.md"]  # which is made, all of it
    count = {
        page.relative_to(PACK).as_posix(): words_by_hand(page.read_text(encoding="utf-8"))
        for page in written
    }
    assert (total := sum(count.values())) < MOST, f"{total} words by hand: {count}"


MEASURED = re.compile(r"<!-- \w+: from (lab/\S+) -->\n(.*?)<!-- end -->", re.DOTALL)


def test_tables_of_measurements_are_as_their_files_have_them():
    found = [
        (page.name, file, table)
        for page in PAGES
        for file, table in MEASURED.findall(page.read_text(encoding="utf-8"))
    ]
    assert found
    for page, file, table in found:
        assert table in (PACK / file).read_text(encoding="utf-8"), f"{page}: {file}"


COSTS = re.compile(r"^\| `([^`]+)` +\|(.*)$", re.MULTILINE)
MOST_TIMES = 2.5  # plain ESD's seconds a step


def test_a_method_that_takes_far_longer_than_plain_esd_says_so():
    rows = COSTS.findall((PACK / "lab/benchmarks/results/methods.md").read_text(encoding="utf-8"))
    times = {name: [*map(float, re.findall(r", ([\d.]+)", row))] for name, row in rows}
    assert times["esd-x"] == [1.0, 1.0] and times.keys() > METHODS.keys()
    slow = [name for name, each in times.items() if max(each, default=0.0) > MOST_TIMES]
    assert all("times as long" in METHODS[name].words for name in slow)


def parsed(verb: str, words: str) -> None:
    """Let a verb's parser take the words of a command; what stands in brackets is left out."""
    module = importlib.import_module(f"modular_safety_lora.commands.{verb.replace('-', '_')}")
    parser = argparse.ArgumentParser()
    module.options(parser)
    words = re.sub(r"\[[^\[\]]*(\[[^\]]*\])?[^\]]*\](\.\.\.)?", "", words).replace("\\\n", " ")
    parser.parse_args([word.removesuffix("...") for word in shlex.split(words, comments=True)])


SHOWN = re.compile(f"python {COMMAND.pattern}((?:.*\\\\\n)*.*)")


def test_every_verb_has_an_example_that_its_options_take():
    for verb in VERBS:
        module = importlib.import_module(f"modular_safety_lora.commands.{verb.replace('-', '_')}")
        found = [each for each in SHOWN.findall(module.__doc__) if each[0] == verb]
        assert found, verb
        parsed(verb, found[0][1])
