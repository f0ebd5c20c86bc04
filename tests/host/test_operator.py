"""The operator's settings file: trusted keys hold everywhere a safety module enters, and a typo switches nothing off."""

import json

import folder_paths
import merging
import pytest
import torch
from modular_safety_lora.demo import assets
from modular_safety_lora.modular.files import ModuleFileError, load_safety
from modular_safety_lora.modular.signing import new_key, sign_file
from modular_safety_lora.nodes.load import LoadSafetyLora
from modular_safety_lora.nodes.merge import ModularMerge
from modular_safety_lora.nodes.settings import FILE, SettingsError


@pytest.fixture
def place(models, tmp_path, monkeypatch):
    """A user folder and a loras folder of the test's own; writes the settings."""
    before, user = folder_paths.folder_names_and_paths["loras"], folder_paths.get_user_directory()
    folder_paths.folder_names_and_paths["loras"] = ([str(tmp_path)], before[1])
    folder_paths.set_user_directory(str(tmp_path / "user"))
    (tmp_path / "user").mkdir()
    for name in ("signed", "unsigned"):
        (tmp_path / f"{name}.safetensors").write_bytes((models / "loras" / assets.SAFETY).read_bytes())
    yield lambda content: (tmp_path / "user" / FILE).write_text(
        content if isinstance(content, str) else json.dumps(content), encoding="utf-8"
    )
    folder_paths.folder_names_and_paths["loras"] = before
    folder_paths.set_user_directory(user)


def load(name: str):
    return LoadSafetyLora.execute(f"{name}.safetensors").args[0]


def test_without_settings_nothing_changes(place):
    assert load("unsigned")
    place({})
    assert load("unsigned")


def test_trusted_keys_are_demanded_by_the_loader_and_by_the_merge(place, tmp_path, model):
    public = new_key(tmp_path / "key.pem")
    sign_file(tmp_path / "signed.safetensors", tmp_path / "key.pem")
    before = LoadSafetyLora.fingerprint_inputs(lora_name="signed.safetensors")
    place({"trusted_keys": [public]})
    assert LoadSafetyLora.fingerprint_inputs(lora_name="signed.safetensors") != before, "what was loaded before loads anew"
    assert load("signed")[0].sha256 == load_safety(tmp_path / "unsigned.safetensors", "u").sha256
    with pytest.raises(ModuleFileError, match="unsigned.safetensors: it is not signed"):
        load("unsigned")
    made = load_safety(tmp_path / "unsigned.safetensors", "just-trained.safetensors")
    with pytest.raises(ModuleFileError, match="just-trained.safetensors: it is not signed"):
        ModularMerge.execute(model, [made])
    assert ModularMerge.execute(model, load("signed")).args[0].patches


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "Expecting property name"),
        ("[]", "it must be an object with trusted_keys, and nothing else"),
        ({"trusted_key": []}, "it must be an object with trusted_keys, and nothing else"),
        ({"trusted_keys": "AAAA"}, "trusted_keys must be a list of texts"),
        ({"trusted_keys": [1]}, "trusted_keys must be a list of texts"),
        ({"trusted_keys": ["AAAA"]}, "must be 32 bytes in base64"),
    ],
)
def test_a_settings_file_with_a_mistake_lets_nothing_through(place, model, content, message):
    place(content)
    with pytest.raises(SettingsError, match=message):
        load("unsigned")
    with pytest.raises(SettingsError, match="No safety module loads until this file is mended"):
        ModularMerge.execute(model, [merging.safety({"x": torch.ones(1)})])
