"""What is found by its name is there once, and a file that was written to be found is found."""

import re
import sys

import pytest
from modular_safety_lora.audit.detectors import registry as detectors
from modular_safety_lora.audit.presets import PresetError, load_presets
from modular_safety_lora.commands import VERBS
from modular_safety_lora.lab.server import PACK
from modular_safety_lora.options.registry import RegistryError, by_name, marked
from modular_safety_lora.training import objectives

READ = 'Mark = type("Mark", (), {"name": "one", "kind": "one"})\n'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A package to put files into, and its name."""
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / f"planted_{abs(hash(tmp_path))}"
    path.mkdir()
    (path / "__init__.py").touch()
    yield path
    for name in [name for name in sys.modules if name.startswith(path.name)]:
        del sys.modules[name]


def read(folder, mark):
    return by_name(
        (each.name, file, each) for file, each in marked(folder.name, mark, ("part",), "where.py")
    )


@pytest.mark.parametrize("mark", ["METHOD", "KIND"])
def test_two_files_of_one_name_are_refused(folder, mark):
    for file in ("first", "second"):
        (folder / f"{file}.py").write_text(f"{READ}{mark} = Mark\n", encoding="utf-8")
    with pytest.raises(RegistryError, match=r"'one' is named twice.*first\.py.*second\.py"):
        read(folder, mark)


@pytest.mark.parametrize("mark", ["METHOD", "KIND"])
def test_a_file_without_its_mark_is_refused_unless_it_is_a_helper(folder, mark):
    (folder / "first.py").write_text(f"{READ}{mark} = Mark\n", encoding="utf-8")
    (folder / "part.py").write_text("", encoding="utf-8")
    assert list(read(folder, mark)) == ["one"]
    (folder / "second.py").write_text("METHODS = 1\n", encoding="utf-8")
    with pytest.raises(RegistryError, match=rf"second\.py has no {mark}.*where\.py"):
        read(folder, mark)


def test_helpers_are_there():
    """A name that is left among the helpers would hide a file of that name."""
    for where, helpers in (
        ("training/objectives", objectives.PARTS),
        ("audit/detectors", detectors.HELPERS),
    ):
        assert all((PACK / where / f"{name}.py").is_file() for name in helpers)


def test_a_verb_is_a_file_and_a_file_with_work_is_a_verb():
    files = {
        path.stem.replace("_", "-")
        for path in (PACK / "commands").glob("*.py")
        if re.search(r"^def work\(", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert files == VERBS.keys()


def test_a_preset_that_stands_twice_is_refused(tmp_path):
    file = tmp_path / "presets.json"
    rule = '{"thresholds": "all 0.25"}'
    file.write_text(f'{{"mine": {rule}, "mine": {rule}}}', encoding="utf-8")
    with pytest.raises(PresetError, match=r"presets\.json.*`mine` is there 2 times"):
        load_presets(file)
