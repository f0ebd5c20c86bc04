"""The operator's settings file, as people write and misplace it: nothing turns a policy off."""

import json
import logging
import os
import re

import pytest
from modular_safety_lora.audit.presets import PresetError
from modular_safety_lora.nodes import audits, policy
from modular_safety_lora.nodes.settings import FILE, SettingsError, operator, settings_file
from operator_settings import load

DEMANDS = '{"require_lock": true}'
PUBLIC = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="  # of RFC 8032's first test


def link_to_nothing(file) -> None:
    file.symlink_to("nowhere.json")


def link_to_itself(file) -> None:
    file.symlink_to(file.name)


def in_a_users_folder(file) -> None:
    (file.parent / "default").mkdir()
    (file.parent / "default" / FILE).write_text(DEMANDS)


def link_in_a_users_folder(file) -> None:
    (file.parent / "default").mkdir()
    (file.parent / "default" / FILE).symlink_to("nowhere.json")


def holds(text: str, encoding: str = "utf-8"):
    return lambda file: file.write_bytes(text.encode(encoding))


TWICE = '{"require_lock": true, "detectors": {}, "require_lock": false}'
MISTAKES = {
    "a link to nothing": (link_to_nothing, "it is a link to a missing file"),
    "a link to itself": (link_to_itself, "symbolic links|link to a missing file"),
    "a folder": (os.mkdir, "it is a folder|this user may not"),
    "in a user's folder": (
        in_a_users_folder,
        "it is missing, and .*default.* is read by nothing; move that",
    ),
    "a link in a user's folder": (
        link_in_a_users_folder,
        "it is missing, and .*default.* is read by nothing",
    ),
    "empty": (holds(""), "it is not JSON"),
    "UTF-16": (holds(DEMANDS, "utf-16"), "can't decode"),
    "a key twice": (holds(TWICE), "`require_lock` is there 2 times; keep one"),
    "a key twice, below": (
        holds('{"detectors": {"x": {"kind": "yolo", "kind": "classifier"}}}'),
        "`kind` is there 2 times",
    ),
    "a key twice, escaped": (
        holds('{"require_lock": true, "require_l\\u006fck": false}'),
        "`require_lock` is there 2 times",
    ),
    "limits the wrong way round": (
        holds('{"retained_in_function": {"stop": 0.9}}'),
        "limits of retained safety in function are 0.9 .stop. and 0.85 .look.",
    ),
    "a limit misspelt": (
        holds('{"retained_in_function": {"stopp": 0.9}}'),
        "there is no `retained_in_function.stopp`; there are stop, look; perhaps `stop` is meant",
    ),
    "a limit that is no number": (
        holds('{"retained_in_function": {"look": "0.9"}}'),
        "`retained_in_function.look` is '0.9'; it must be a number",
    ),
    "NaN": (holds('{"detectors": {"x": {"floor": NaN}}}'), "it holds NaN"),
    "nested": (holds('{"detectors": ' + '{"x": ' * 100_000), "it is nested too deeply"),
    "misspelt": (
        holds('{"allowed_safty": []}'),
        "there is no `allowed_safty`; there are .*; perhaps `allowed_safety` is meant",
    ),
    "an audit by words": (
        holds('{"require_audit": "yes"}'),
        "`require_audit` must be true, false or an object",
    ),
    "an audit without a gate": (
        holds('{"require_audit": {"gates": []}}'),
        "`require_audit` names no gate",
    ),
    "a gate misspelt": (
        holds('{"require_audit": {"gates": ["decode", "dor"]}}'),
        "`require_audit.gates.1` is 'dor'; it must be one of 'decode' or 'door'",
    ),
    "an audit's word misspelt": (
        holds('{"require_audit": {"flaged": "black"}}'),
        "there is no `require_audit.flaged`; there are .*; perhaps `flagged` is meant",
    ),
    "an action that there is not": (
        holds('{"require_audit": {"flagged": "none"}}'),
        "`require_audit.flagged` is 'none'; it must be one of",
    ),
    "inputs by a number": (
        holds('{"require_audit": {"inputs": 1}}'),
        "`require_audit.inputs` is 1; it must be true or false",
    ),
    "no provider": (holds('{"audit_provider": "gpu"}'), "There is no provider 'gpu'; there are"),
}


@pytest.fixture
def file(write_settings):
    return settings_file()


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_closes_and_is_in_the_log_at_the_start(file, mistake, caplog, model):
    make, message = MISTAKES[mistake]
    make(file)
    with pytest.raises(SettingsError, match=message) as told:
        operator()
    assert str(file) in str(told.value)
    with pytest.raises(SettingsError, match="No safety LoRA loads until this file is corrected"):
        load("unsigned")
    with caplog.at_level(logging.INFO):
        taken_away = policy.install()
    try:
        (record,) = caplog.records
        assert record.levelno == logging.ERROR and str(told.value) in record.getMessage()
        with pytest.raises(SettingsError, match=message):
            model.model.apply_model(None, None)
    finally:
        taken_away()


def test_a_file_that_begins_with_a_mark_of_its_encoding_is_read(file):
    file.write_text(DEMANDS, encoding="utf-8-sig")
    assert operator().require_lock


def test_settings_that_nothing_reads_beside_those_that_count_are_told(file, caplog):
    """Whoever may write in a user's folder can't stop what the operator allows."""
    file.write_text("{}")
    in_a_users_folder(file)
    assert not operator().require_lock
    policy.install()()
    assert [each.levelname for each in caplog.records] == ["ERROR"]
    assert f"default{os.sep}{FILE} is read by nothing. The settings are {file}" in caplog.text


OWN = {"kind": "yolo", "file": "there-is-none.onnx", "classes": ["a"]}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"audit_presets": "rules.json"}, "rules.json: the file of presets can't be read"),
        (
            {"audit_presets": {"x": {"thresholds": "all 0.5", "units": ""}}},
            "perhaps `unit` is meant",
        ),
        ({"detectors": {"x": {"kind": "yollo"}}}, "needs a `kind`, one of .*yolo"),
        ({"detectors": {"x": OWN}}, "the detector 'x': .*there-is-none.onnx is not a file"),
    ],
)
def test_what_no_audit_can_use_is_in_the_log_at_the_start(file, settings, message, caplog):
    file.write_text(json.dumps(settings), encoding="utf-8")
    audits.tell_mistakes()
    (record,) = caplog.records
    said = record.getMessage()
    assert record.levelno == logging.ERROR and said.startswith(str(file))
    assert re.search(message, said), said
    caplog.clear()
    file.write_text("{}")
    audits.tell_mistakes()
    assert not caplog.records


@pytest.mark.parametrize("text", ['{"a": {"thresholds": {}}, "a": {}}', '{"a": NaN}'])
def test_a_file_of_presets_says_one_thing(file, text):
    (file.parent / "rules.json").write_text(text)
    file.write_text('{"audit_presets": "rules.json"}')
    with pytest.raises(PresetError, match="rules.json: the file of presets can't be read"):
        audits.presets()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, ""),
        ({"require_lock": False, "trusted_keys": [], "detectors": {}}, ""),
        ({"audit_provider": "cpu"}, "audit_provider"),
        (
            {
                "trusted_keys": [PUBLIC],
                "require_lock": True,
                "allowed_safety": ["0" * 64, "1" * 64],
            },
            "trusted_keys (1), require_lock, allowed_safety (2);"
            " no model samples without a safety LoRA",
        ),
    ],
)
def test_what_is_in_force_is_in_the_log_at_the_start(file, settings, said, caplog):
    file.write_text(json.dumps(settings), encoding="utf-8")
    with caplog.at_level(logging.INFO):
        policy.install()()
    assert [each.getMessage() for each in caplog.records] == (
        [f"{file} is in force: {said}"] if said else []
    )
