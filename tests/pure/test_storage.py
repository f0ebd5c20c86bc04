"""Files are written whole or not at all; a fault in one that a person wrote is said in a line."""

import errno
import json
from typing import Annotated, Literal

import pytest
from modular_safety_lora.storage.checked import Checked, fault_of, parsed
from modular_safety_lora.storage.whole import whole, write_text
from pydantic import Field, ValidationError


def test_a_file_is_there_whole_or_as_it_was(tmp_path):
    file = tmp_path / "new folder" / "report.json"
    write_text(file, "first")
    with pytest.raises(KeyboardInterrupt), whole(file) as part:
        part.write_text("half of the sec", encoding="utf-8")
        raise KeyboardInterrupt
    with pytest.raises(FileNotFoundError), whole(file):
        pass  # nothing was written at all
    assert file.read_text(encoding="utf-8") == "first"
    assert [each.name for each in file.parent.iterdir()] == ["report.json"]
    with whole(file) as one, whole(file) as other:  # as two processes at once
        one.write_text("one", encoding="utf-8")
        other.write_text("other", encoding="utf-8")
    assert file.read_text(encoding="utf-8") == "one"
    assert [each.name for each in file.parent.iterdir()] == ["report.json"]


class Rule(Checked):
    count: Annotated[int, Field(ge=1, le=9)] = 1
    share: Annotated[float, Field(gt=0.0)] = 0.5
    on: bool = False
    names: Annotated[tuple[str, ...], Field(min_length=1, max_length=2)] = ("a",)
    way: Literal["up", "down"] = "up"
    more: dict[str, float] = {}


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"count": 0}, "`count` is 0; it must be at least 1"),
        ({"count": 10}, "`count` is 10; it must be at most 9"),
        ({"count": 1.5}, "`count` is 1.5; it must be a whole number"),
        ({"count": "1"}, "`count` is '1'; it must be a whole number"),
        ({"count": True}, "`count` is True; it must be a whole number"),
        ({"share": 0}, "`share` is 0; it must be above 0"),
        ({"share": True}, "`share` is True; it must be a number"),
        ({"share": float("nan")}, "`share` is nan; it must be a finite number"),
        ({"on": 1}, "`on` is 1; it must be true or false"),
        ({"names": []}, "`names` is []; it must be a list of at least 1"),
        ({"names": "a"}, "`names` is 'a'; it must be a list"),
        ({"names": [1]}, "`names.0` is 1; it must be a text"),
        ({"names": ["a", "b", "c"]}, "`names` is ['a', 'b', 'c']; it must be a list of at most 2"),
        ({"way": "left"}, "`way` is 'left'; it must be one of 'up' or 'down'"),
        ({"more": []}, "`more` is []; it must be an object"),
        ({"more": {"a": None}}, "`more.a` is None; it must be a number"),
        ([], "[]; it must be an object"),
        (
            {"counts": 1},
            "there is no `counts`; there are count, share, on, names, way, more;"
            " perhaps `count` is meant",
        ),
        ({"count": 0, "on": 1}, "`count` is 0; it must be at least 1 (and 1 more)"),
    ],
)
def test_a_fault_names_the_place_the_value_and_what_must_stand_there(said, fault):
    with pytest.raises(ValidationError) as caught:
        Rule.model_validate_json(json.dumps(said))
    assert fault_of(caught.value, Rule) == fault


def test_a_text_that_one_reader_takes_otherwise_than_another_is_refused():
    assert parsed('{"a": [{"b": 1}, {"b": 2.5}]}') == {"a": [{"b": 1}, {"b": 2.5}]}
    for text, reason in (
        ('{"a": 1, "b": [{"c": 1, "c": 1}]}', "`c` is there 2 times"),
        ('{"a": -Infinity}', "it holds -Infinity"),
        ("", "it is not JSON"),
        ("[" * 1_000_000, "it is nested too deeply"),
    ):
        with pytest.raises(ValueError, match=reason):
            parsed(text)


def test_a_file_that_cannot_be_written_is_named_with_a_way_out(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError, match="report.json: (something of this name|a file has)"):
        write_text(tmp_path / "file" / "report.json", "{}")
    for number, said in ((errno.ENOSPC, "disk is full; make room"), (errno.EACCES, "allow it, or")):
        with (
            pytest.raises(OSError, match=rf"report.json: .*{said}") as caught,
            whole(tmp_path / "report.json"),
        ):
            raise OSError(number, "as a disk says it")
        assert "Errno" not in str(caught.value)
    with (
        pytest.raises(FileNotFoundError, match=r"absent.txt: there is no such file"),
        whole(tmp_path / "report.json"),
    ):
        (tmp_path / "absent.txt").read_text()
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
