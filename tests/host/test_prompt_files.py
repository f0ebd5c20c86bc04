"""Prompt sets as files.

The columns of published sets, lines, categories and conditions, and what can't be read.
"""

import pytest
from modular_safety_lora.evaluation.prompt_set import (
    Defaults,
    PromptSetError,
    Selection,
    read_prompts,
)


def test_the_columns_of_i2p_are_read_row_by_row(i2p):
    first, second, third = read_prompts(i2p)
    assert (first.text, first.seed, first.guidance, first.width, first.height) == (
        "a cat, asleep",
        2319341,
        7.5,
        64,
        96,
    )
    assert (
        first.categories == ("sexual", "shocking")
        and second.text == 'a "red" car'
        and second.seed == 3969596299
    )
    assert third.text == "a dog\non two lines" and third.guidance == 12.0
    assert [each.key for each in (first, second, third)] == ["000001", "000002", "000003"]


def test_other_sets_columns_and_a_plain_text_are_read(tmp_path):
    file = tmp_path / "set.csv"
    file.write_text(
        "Case_Number,adv_prompt,evaluation_seed,evaluation_guidance\n12,one,5,\n7,two,,3\n",
        encoding="utf-8-sig",
    )
    one, two = read_prompts(file, Defaults(seed=100, guidance=9.0, width=70, height=512))
    assert (one.key, one.text, one.seed, one.guidance, one.width) == ("000012", "one", 5, 9.0, 64)
    assert (two.key, two.seed, two.guidance) == ("000007", 102, 3.0)
    text = tmp_path / "set.txt"
    text.write_text("a cat\n\n a dog, running \n", encoding="utf-8")
    assert [(each.text, each.seed) for each in read_prompts(text)] == [
        ("a cat", 1),
        ("a dog, running", 3),
    ]


@pytest.mark.parametrize("name", ["set.csv", "set.txt"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_only_line_ends_end_a_prompt(tmp_path, name, end):
    """U+2028, U+0085 and form feeds stand in published prompts; `splitlines` cuts there."""
    odd = "a cat\u2028on a\u0085mat\fasleep"
    lines = ["prompt", odd, "a dog"] if name.endswith("csv") else [odd, "a dog"]
    (tmp_path / name).write_bytes(end.join(lines).encode())
    assert [each.text for each in read_prompts(tmp_path / name)] == [odd, "a dog"]


def test_rows_are_chosen_by_category_and_by_a_column(i2p):
    assert [each.text for each in read_prompts(i2p, selection=Selection(category="Sexual"))] == [
        "a cat, asleep"
    ]
    assert [
        each.key for each in read_prompts(i2p, selection=Selection(where="nudity_percentage > 50"))
    ] == ["000001"]
    assert [
        each.key for each in read_prompts(i2p, selection=Selection(where="nudity_percentage<=60.5"))
    ] == [
        "000001",
        "000002",
    ]
    assert [
        each.key for each in read_prompts(i2p, selection=Selection(where="hard=1", limit=5))
    ] == ["000003"]
    assert len(read_prompts(i2p, selection=Selection(limit=2))) == 2


@pytest.mark.parametrize(
    ("text", "more", "message"),
    [
        ("", {}, "it is empty. Write a row for each prompt"),
        ("prompt\na\n\0\0\0\n", {}, "it holds NUL bytes: it is damaged"),
        ("words\na cat\n", {}, "there is no column prompt or adv_prompt or text; there are words"),
        (
            "prompt,sd_seed\na,1\nb,x\nc,y\n",
            {},
            "2 rows can't be read .first: row 2: the sd_seed is 'x'",
        ),
        ("prompt,width\na,20\n", {}, "row 1: a picture of 16 x 512 pixels can't be made"),
        ("prompt,height\na,1e9\n", {}, "row 1: a picture of 512 x 1000000000 pixels can't be"),
        ("prompt\na,b\nc, d,\n", {}, "2 rows can't be read .first: row 1: 'b' is beyond"),
        ("prompt,cfg\na,\nb,nan\n", {}, "row 2: the cfg is 'nan', which is not a finite number"),
        ("prompt,sd_guidance_scale\na,-inf\n", {}, "row 1: the sd_guidance_scale is '-inf'"),
        ("prompt,sd_seed\na,inf\n", {}, "row 1: the sd_seed is 'inf', which is not a finite"),
        ("prompt,sd_seed\na,1e400\n", {}, "row 1: the sd_seed is '1e400', which is not a finite"),
        ("prompt,seed\na,5.0\nb,1.5\n", {}, "row 2: the seed is '1.5', which is not a whole"),
        ("prompt,sd_image_width\na,NaN\n", {}, "row 1: the sd_image_width is 'NaN'"),
        ('prompt,seed\na,1\n"b,2\nc,3\nd,4\n', {}, "set.csv: row 2 can't be read"),
        ('prompt,seed\n"a,1\n"b",2\n', {}, "set.csv: row 1 can't be read"),
        ('"prompt\na\n', {}, "set.csv: row 1 can't be read"),
        ("prompt\na\n", {"where": "prompt > 1.2.3"}, "'prompt > 1.2.3' is not a condition"),
        ("prompt,sd_seed\na,-1\n", {}, "the seed -1 is not in"),
        ("prompt\n\n", {}, "no prompt is left"),
        ("prompt,categories\na,b\n", {"category": "c"}, "no prompt is left of category 'c'"),
        ("prompt,id\na,1\nb,1\n", {}, "1 key used by more than one row .first: 000001."),
        ("prompt\na\n", {"where": "b"}, "'b' is not a condition"),
        ("prompt\na\n", {"where": "b > 1"}, "there is no column 'b'; there are prompt"),
    ],
)
def test_a_set_that_cannot_be_read_says_why(tmp_path, text, more, message):
    file = tmp_path / "set.csv"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(PromptSetError, match=message):
        read_prompts(file, selection=Selection(**more))
    with pytest.raises(PromptSetError, match="can't be read as a prompt set"):
        read_prompts(tmp_path / "absent.csv")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"guidance": float("nan")}, "cfg is nan; it must be a finite number"),
        ({"guidance": float("inf")}, "cfg is inf"),
        ({"width": 0}, "width is 0; it must be a whole number, at least 64"),
        ({"seed": -1}, "first_seed is -1"),
    ],
)
def test_what_rows_without_a_value_take_has_a_meaning(changed, message):
    with pytest.raises(ValueError, match=message):
        Defaults(**changed)
