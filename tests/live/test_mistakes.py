"""What newcomers see of their mistakes, word by word: the table in docs/faq.md is made here."""

import os
import re

import pytest
from mistakes import MISTAKES, Newcomer
from modular_safety_lora.lab.server import PACK

PAGE = PACK / "docs" / "faq.md"
START, END = "<!-- mistakes: tests/live/test_mistakes.py -->\n", "<!-- end of mistakes -->"
LONG = 420  # letters of a cell; the rest is details
DIGEST = re.compile(r"\b[0-9a-f]{12}\b")  # of what was trained here: another with other kernels


@pytest.fixture
def newcomer(server, shipped_prompt, put, tmp_path):
    return Newcomer(server, shipped_prompt, put, tmp_path)


def row(mistake: str, when: str, said: str, folders: dict) -> str:
    for folder, name in folders.items():
        said = said.replace(str(folder), name)
    said = re.sub(r"\s*\n\s*", "<br>", re.sub(r"\.cpp:\d+", ".cpp", said))
    said = re.sub(r"; date \*\*[-0-9]+\*\*", "", said)
    shown = said if len(said) <= LONG else f"{said[: LONG - 2].rsplit(' ', 1)[0]} ..."
    return f"| {mistake} | {when} | {shown.replace('|', chr(92) + '|')} |\n"


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_is_seen_is_what_the_page_says(newcomer, mistake):
    """MSL_WRITE_TABLE=1 writes the row."""
    folders = {newcomer.server.folder: "ComfyUI", newcomer.folder: "."}
    made = row(mistake, *MISTAKES[mistake](newcomer), folders)
    page = PAGE.read_text(encoding="utf-8")
    before, rows = page.split(START)[0], page.split(START)[1].split(END)[0]
    after = page.split(END)[1]
    if os.environ.get("MSL_WRITE_TABLE"):
        known = {line.split(" | ")[0][2:]: f"{line}\n" for line in rows.splitlines()[2:]}
        known[mistake] = made
        head = "| mistake | seen | what is said |\n| --- | --- | --- |\n"
        rows = head + "".join(known[name] for name in MISTAKES if name in known)
        PAGE.write_text(before + START + rows + END + after, encoding="utf-8")
    assert DIGEST.sub("*", made) in DIGEST.sub("*", rows)


def test_the_page_has_every_mistake_once():
    rows = PAGE.read_text(encoding="utf-8").split(START)[1].split(END)[0].splitlines()[2:]
    assert [line.split(" | ")[0][2:] for line in rows] == list(MISTAKES)
