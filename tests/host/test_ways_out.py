"""Ways out of a ComfyUI with `require_audit`: each is stopped, or declared."""

import os
import re

import pytest
import requests
from declared_ways import DECLARED
from gated import faces_in, has_face, housed
from modular_safety_lora.lab.server import PACK
from ways_of_packs import other_packs
from ways_out import WAYS

DOCUMENT = PACK / "docs" / "threat-model.md"
START, END = "<!-- table: tests/host/test_ways_out.py -->\n", "\n<!-- end of ways out -->"


@pytest.fixture(scope="module")
def house(request, tmp_path_factory):
    with housed(tmp_path_factory.mktemp("house"), other_packs, **request.param) as running:
        yield running


def of(**wanted):
    """One server at a time: folders and methods are the process's."""
    return pytest.mark.parametrize("house", [wanted], indirect=True, scope="module", ids=[""])


@of()
@pytest.mark.parametrize("name", WAYS)
def test_no_picture_gets_out(house, name):
    assert not any(map(faces_in, WAYS[name](house)))


@of()
def test_a_stream_of_words_leaves_as_it_is_and_of_another_nothing(house):
    """Its pieces cut letters in two."""
    words = "data: größer, 危険 ✓\n\n" * 40
    assert house.get("/other/called-text", words=words).content == words.encode()
    for other in ("<svg xmlns='http://www.w3.org/2000/svg'/>", "a\0b"):
        with pytest.raises(requests.RequestException, match="ended prematurely"):
            house.get("/other/called-text", words=other)


@pytest.mark.long
@of()
@pytest.mark.parametrize("name", DECLARED)
def test_what_is_declared_gets_out(house, name):
    """When the gates learn to see one of these, it moves to the ways that are stopped."""
    assert has_face(DECLARED[name][1](house))


@pytest.mark.long
@of(gates=["door"])
@pytest.mark.parametrize("name", WAYS)
def test_the_door_alone_stops_it_too(house, name):
    assert not any(map(faces_in, WAYS[name](house)))


# what shows nothing to this test's own reader, wherever it comes from
UNREAD = ("SVG", "archive", "half a PNG", "ranges", "unknown kind", "sent as a text", "twin")


@pytest.mark.long
@of(held=False)
@pytest.mark.parametrize("name", [each for each in WAYS if not any(u in each for u in UNREAD)])
def test_it_gets_out_of_another_comfyui(house, name):
    """A way that leads nowhere shows nothing."""
    assert any(map(faces_in, WAYS[name](house)))


def table() -> str:
    rows = ["| way out | `require_audit` |", "| --- | --- |"]
    rows += [f"| {name} | stops it |" for name in WAYS]
    rows += [
        f"| {name} | **does not see it**: {reason} |" for name, (reason, _) in DECLARED.items()
    ]
    return "\n".join(rows)


def test_the_table_is_what_is_tested_here():
    """MSL_WRITE_TABLE=1 writes it."""
    assert len(WAYS) >= 25
    text = DOCUMENT.read_text(encoding="utf-8")
    if os.environ.get("MSL_WRITE_TABLE"):
        found = re.escape(START) + "(.*?)" + re.escape(END.removeprefix("\n"))
        text = re.sub(found, lambda _: START + table() + END, text, flags=re.S)
        DOCUMENT.write_text(text, encoding="utf-8")
    assert START + table() + END in text
