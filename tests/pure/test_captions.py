"""Captions and prompts as people save them: read as they were meant, or refused by name."""

import json
import os

import pytest
from modular_safety_lora.host.prompts import read_lines
from modular_safety_lora.training.captions import DataError, caption_warnings, find_pictures
from PIL import Image

WORDS = "ein Käfer, 日本"


@pytest.fixture
def folder(tmp_path):
    """Two pictures with a caption each."""
    for name in ("a", "b"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(name)
    return tmp_path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_text_that_says_what_it_is_is_read_without_its_mark(folder, encoding):
    mark = "\ufeff" if encoding[-3:] in ("-le", "-be") else ""
    (folder / "b.txt").write_text(f"{mark}{WORDS}\n", encoding=encoding)
    assert [each.caption for each in find_pictures(folder)] == ["a", WORDS]
    assert read_lines(folder / "b.txt") == [WORDS]
    line = json.dumps({"file_name": "b.png", "text": WORDS}, ensure_ascii=False)
    (folder / "metadata.jsonl").write_text(f"{mark}{line}\r\n", encoding=encoding)
    assert [each.caption for each in find_pictures(folder)] == [WORDS]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("ein Käfer".encode("latin-1"), "it is not UTF-8: .* at byte 5"),
        ("plain".encode("utf-16-le"), "it holds NUL bytes"),
        (b"\xff\xfea", "it is not UTF-8: truncated data"),
    ],
)
def test_what_is_no_text_is_refused_with_count_and_first(folder, content, reason):
    (folder / "a.txt").write_bytes(content)
    with pytest.raises(DataError, match=rf"1 of 2 captions can't be read \(first: a.txt: {reason}"):
        find_pictures(folder)
    with pytest.raises(ValueError, match=rf"a.txt: {reason}.* Save it as UTF-8"):
        read_lines(folder / "a.txt")
    (folder / "metadata.jsonl").write_bytes(content)
    with pytest.raises(DataError, match="metadata.jsonl: it can't be read"):
        find_pictures(folder)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"file_name": "a.png", "text": 7}', "line 2: text must be a text; it is 7"),
        ('{"file_name": "a.png", "text": null}', "line 2: text must be a text; it is None"),
        ('{"file_name": "a.png", "text": ["x"]}', r"line 2: text must be a text; it is \['x'\]"),
        ('{"file_name": ["a"], "text": "x"}', "line 2: file_name must be a text"),
        (r'{"file_name": "a.png", "text": "\ud800"}', "line 2: text must be a text"),
        ('["a.png", "x"]', "line 2 must be JSON with file_name and text"),
        ("[" * 200_000, "line 2 must be JSON with file_name and text"),
        ('{"file_name": "gone.png", "text": "x"}', "line 2 names gone.png, which does not exist"),
    ],
)
def test_a_line_of_metadata_that_is_none_is_named(folder, line, reason):
    (folder / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "a"}\n' + line)
    with pytest.raises(DataError, match=reason):
        find_pictures(folder)


def test_prompts_that_are_not_there_are_no_empty_list(tmp_path):
    with pytest.raises(ValueError, match="gone.txt: its lines can't be read"):
        read_lines(tmp_path / "gone.txt")
    (tmp_path / "empty.txt").write_text(" \n\n")
    with pytest.raises(ValueError, match="empty.txt: it is empty; write a prompt on each line"):
        read_lines(tmp_path / "empty.txt")


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
def test_captions_of_names_that_are_no_utf_8_are_found(folder):
    name = os.fsdecode(b"caf\xe9")
    (folder / "b.png").rename(folder / f"{name}.png")
    (folder / "b.txt").rename(folder / f"{name}.txt")
    assert {each.caption for each in find_pictures(folder)} == {"a", "b"}


def warned(folder) -> list[str]:
    return caption_warnings(folder, find_pictures(folder))


@pytest.mark.parametrize("content", ["", " \r\n\t", "\ufeff\n"])
def test_pictures_without_a_caption_are_counted_and_the_first_is_named(folder, content):
    """Empty, of white space, and of a mark only: all are the empty prompt."""
    assert warned(folder) == []
    (folder / "b.txt").write_text(content, encoding="utf-8")
    assert [each.caption for each in find_pictures(folder)] == ["a", ""]
    assert warned(folder) == [
        f"{folder.name}: 1 of 2 pictures without a caption (first: b.png), trained with the empty"
        " prompt. Write into the .txt beside each."
    ]
    (folder / "a.txt").write_text(content, encoding="utf-8")
    (told,) = warned(folder)
    assert "not one of 2 pictures has a caption (first: a.png). All are trained with the" in told
    assert "this is another folder" in told


def test_lines_without_a_text_and_pictures_without_a_line_are_told(folder):
    Image.new("RGB", (8, 8)).save(folder / "c.JPG")
    lines = [{"file_name": "b.png", "text": " "}, {"file_name": "./c.JPG", "text": " c"}]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert [each.caption for each in find_pictures(folder)] == ["", " c"]
    bare, left_out = warned(folder)
    assert "1 of 2 pictures without a caption (first: b.png)" in bare
    assert "Write their text into metadata.jsonl" in bare
    assert (
        "1 of 3 pictures left out, as metadata.jsonl does not name them (first: a.png)" in left_out
    )


@pytest.mark.parametrize("ending", [".caption", ".Cap", ".text", ".TXT"])
def test_captions_under_another_ending_are_refused(folder, ending):
    """Such as sd-scripts writes: without a word all would be trained with the empty prompt."""
    for name in "ab":
        (folder / f"{name}.txt").rename(folder / f"{name}{ending}")
    if (folder / "a.txt").exists():
        pytest.skip("names here are the same in capitals")
    with pytest.raises(DataError, match=rf"2 of 2 pictures .* \(first: a{ending}\).*rename them"):
        find_pictures(folder)
    (folder / "a.txt").write_text("a")
    with pytest.raises(DataError, match=rf"1 of 2 pictures .* \(first: b{ending}\)"):
        find_pictures(folder)
    (folder / "b.txt").write_text("b")
    assert warned(folder) == []


def test_a_caption_of_no_picture_is_refused_though_its_picture_may_have_none(folder):
    (folder / "b.txt").rename(folder / "d.txt")
    with pytest.raises(DataError, match=r"1 caption without a picture \(first: d.txt\)"):
        find_pictures(folder)
