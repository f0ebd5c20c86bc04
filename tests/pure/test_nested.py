"""JSON that is nested without end is a fault of its file, and no crash."""

import pytest
from modular_safety_lora.audit.presets import PresetError, load_presets
from modular_safety_lora.audit.reading import CompareError, parsed
from modular_safety_lora.modules.concepts import sealed_prompts
from modular_safety_lora.modules.errors import ModuleFileError
from modular_safety_lora.training.captions import DataError, find_pictures

DEEP = 100_000 * "[" + 100_000 * "]"


@pytest.fixture
def file(tmp_path):
    (tmp_path / "deep.json").write_text(DEEP, encoding="utf-8")
    return tmp_path / "deep.json"


def test_a_report_is_no_report():
    with pytest.raises(CompareError, match="'a' is not an audit report.*recursion limit"):
        parsed("a", DEEP)


def test_presets_and_captions_name_the_file(file):
    with pytest.raises(
        PresetError, match="deep.json: the file of presets can't .*nested too deeply"
    ):
        load_presets(file)
    (file.parent / "metadata.jsonl").write_text(DEEP, encoding="utf-8")
    with pytest.raises(DataError, match="metadata.jsonl: line 1 must be JSON"):
        find_pictures(file.parent)


def test_a_modules_prompts_are_no_list_of_texts():
    with pytest.raises(ModuleFileError, match="module: msl.prompts is .* must be a JSON list"):
        sealed_prompts("module", {"msl.prompts": DEEP})
