"""The operator's settings as a file: every mistake is told, and closes; nothing is guessed."""

import json

import cli
import pytest
from certificates import operators
from cryptography.x509.oid import ExtendedKeyUsageOID
from modular_safety_lora.demands.fields import Operator, starts_with
from modular_safety_lora.demands.file import FILE, SettingsError, misplaced, read_settings
from modular_safety_lora.demands.words import faults_in, rows

SEAL = "8f434346648f6b96df89dda901c5176b10a6d83961dd3c1ac88b59b2dc327aa4"
PUBLIC = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="  # of RFC 8032's first test
LOCK = '{"require_lock": true, '
LOGGED = '{"evidence_log": true, '
HOOK = LOGGED + '"webhook": '
MALFORMED = {
    "": "it is not JSON",
    "{": "it is not JSON",
    "[]": "must be an object",
    "null": "must be an object",
    '{"require_lock": true,}': "it is not JSON",
    '{"//": "a comment"}': "there is no `//`",
    '{"require_lock": "true"}': "`require_lock` is 'true'; it must be true or false",
    '{"require_lock": 1}': "`require_lock` is 1; it must be true or false",
    '{"requirelock": true}': "there is no `requirelock`.*perhaps `require_lock` is meant",
    '{"Require_Lock": true}': "perhaps `require_lock` is meant",
    '{"allowed_safty": []}': "perhaps `allowed_safety` is meant",
    LOCK + f'"allowed_safety": "{SEAL}"}}': "it must be a list",
    LOCK + f'"allowed_safety": ["{SEAL.upper()}"]}}': "is not a seal: it must be 64 digits",
    LOCK + '"allowed_safety": [12]}': "`allowed_safety.0` is 12; it must be a text",
    LOCK + '"allowed_bases": ["abc"]}': "'abc' in allowed_bases is not a digest",
    LOCK + '"allowed_tasks": ["abc"]}': "'abc' in allowed_tasks is not a digest",
    f'{{"allowed_tasks": ["{SEAL}"]}}': "allowed_tasks needs require_lock to be true",
    '{"trusted_keys": ["abc"]}': "`trusted_keys.0`: 'abc' is not base64",
    '{"require_probe": true}': "require_probe needs require_lock",
    LOCK + '"require_lock": false}': "`require_lock` is there 2 times",
    '{"private_seed": -1}': "`private_seed` is -1; it must be at least 0",
    '{"private_prompts": "../secret.txt"}': "must lie below the user folder",
    '{"private_prompts": "none.txt"}': "none.txt: its lines can't be read",
    '{"retained_in_function": {"stop": 2}}': "`retained_in_function`: limit_stop is 2.0; it must",
    '{"evidence_log": "yes"}': "`evidence_log` is 'yes'; it must be",
    '{"evidence_log": {"requird": true}}': "no `evidence_log.requird`.*perhaps `required`",
    '{"evidence_log": {"max_mb": 0}}': "`evidence_log.max_mb` is 0; it must be at least 1",
    '{"evidence_log": {"max_mb": 1e999}}': "Infinity|finite|whole number|inf",
    '{"metrics_file": "a.prom"}': "metrics_file needs evidence_log",
    LOGGED + '"metrics_file": "a.txt"}': "reads files ending in .prom",
    HOOK + '"https://a.example"}': "`webhook` is .*it must be an object",
    HOOK + '{"url": "https://a.example"}}': "`webhook.secret_file` is missing",
    HOOK + '{"url": "file:///etc/passwd", "secret_file": "s"}}': "must be an http or https address",
    HOOK + '{"url": "https://u:p@a.example", "secret_file": "s"}}': "holds a user or password",
    HOOK + '{"url": "https://a.example:x", "secret_file": "s"}}': "webhook.url is",
    HOOK + '{"url": "https://a..example", "secret_file": "s"}}': "webhook.url is .*label empty",
    HOOK + '{"url": "https://a.example", "secret_file": "none"}}': "none can't be read",
    HOOK + '{"url": "https://a.example", "secret_file": "../s"}}': "below the user folder",
    HOOK + '{"url": "https://a.example", "secret_file": "short"}}': "holds 3 bytes",
    '{"provenance": true}': "`provenance` is True; it must be an object",
    '{"provenance": {"certificate": "a.pem"}}': "`provenance.key` is missing",
    '{"provenance": {"certificate": "a.pem", "key": ""}}': "`provenance.key` is ''; it must be",
    '{"detectors": []}': "`detectors` is .*it must be an object",
    '{"audit_presets": 3}': "audit_presets must be an object",
    '{"audit_provider": "gpu"}': "There is no provider 'gpu'",
}


@pytest.fixture
def file(tmp_path):
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / "short").write_text("abc\n")
    return tmp_path / "user" / FILE


def test_there_are_many():
    assert len(MALFORMED) >= 30


@pytest.mark.parametrize("text", MALFORMED)
def test_a_malformed_file_closes_and_names_itself_and_what_is_wrong(file, text):
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=MALFORMED[text]) as told:
        read_settings(file)
    assert str(file) in str(told.value)
    done = cli.run("settings", "check", file)
    assert done.returncode == 1 and "Nothing samples until this is corrected" in done.stdout


def test_all_that_is_wrong_is_listed_at_once(file):
    file.write_text('{"require_lock": 1, "allowed_safty": [], "evidence_log": {"max_mb": "a"}}')
    assert len(faults_in(file)) == 3
    said = cli.run("settings", "check", file).stdout
    assert said.count("\n- ") == 3 and "perhaps `allowed_safety` is meant" in said


def test_what_holds_is_said_in_words_and_what_stays_open(file):
    file.write_text(json.dumps({"require_lock": True, "evidence_log": True}))
    done = cli.run("settings", "check", file)
    assert done.returncode == 0
    assert "- require_lock: Every model that samples needs an intact lock" in done.stdout
    assert "add allowed_safety or trusted_keys" in done.stdout
    assert "add allowed_bases" in done.stdout and "Restart ComfyUI after a change" in done.stdout
    held = {
        "require_lock": True,
        "allowed_safety": [SEAL],
        "trusted_keys": [PUBLIC],
        "allowed_bases": [SEAL],
        "evidence_log": {"required": False},
        "metrics_file": "nowhere/a.prom",
        "webhook": {"url": "http://a.example", "secret_file": "long"},
        "audit_presets": {"x": {"thresholds": "all 0.5", "units": ""}},
        "provenance": {"certificate": "none.pem", "key": "none.key"},
    }
    (file.parent / "long").write_text("0123456789abcdef")
    file.write_text(json.dumps(held))
    said = cli.run("settings", "check", file).stdout
    assert "allowed_safety (1): Only safety LoRAs" in said
    for words in (
        "a folder that is not there",
        "is not https",
        "perhaps `unit` is meant",
        "none.pem can't be read",
    ):
        assert words in said, words
    file.write_text('{"evidence_log": true}')
    said = cli.run("settings", "check", file).stdout
    assert "every graph may leave the safety LoRA out" in said
    assert "no line of a model that samples without a safety LoRA" in said
    file.unlink()
    assert cli.run("settings", "check", file).returncode == 1, "a file that is named must be there"


def test_a_certificate_that_signs_nothing_is_told_before_it_is_needed(file):
    named = {"certificate": "studio.pem", "key": "studio.key"}
    file.write_text(json.dumps({"provenance": named}))
    words = "Until then Save Image with Provenance saves nothing"
    operators(file.parent)
    assert words not in cli.run("settings", "check", file).stdout
    operators(file.parent, purpose=ExtendedKeyUsageOID.SERVER_AUTH)  # of a web server
    assert words in cli.run("settings", "check", file).stdout


MEANT = [
    "default/modular-safety-lora.json",
    "../modular-safety-lora.json",
    "modular_safety_lora.json",
    "modular-safety-lora",
    "modular-safety-lora.json.txt",
    "Modular Safety LoRA.JSON",
]


@pytest.mark.parametrize("name", MEANT)
def test_a_file_in_the_wrong_place_or_of_another_name_closes_and_is_named(file, name):
    meant = file.parent / name
    meant.parent.mkdir(exist_ok=True)
    meant.write_text('{"require_lock": true}')
    if file.exists():
        pytest.skip("this disk knows no case")
    with pytest.raises(SettingsError, match="it is missing, and .* is read by nothing"):
        read_settings(file)
    file.write_text("{}")
    assert not read_settings(file).require_lock
    (found,) = misplaced(file)
    assert found.samefile(meant)
    file.write_text('{"require_lock": true}')
    assert f"- {found} is read by nothing." in cli.run("settings", "check", file).stdout


@pytest.mark.parametrize("name", ["modular-safety-lora.json.bak", "modular-safety-lora-log", "x"])
def test_what_nobody_meant_to_be_the_settings_closes_nothing(file, name):
    (file.parent / name).write_text("{}")
    assert not read_settings(file).require_lock and not misplaced(file)


def test_a_start_holds_at_once_and_replaces_nothing(file):
    done = cli.run("settings", "init", file)
    assert done.returncode == 0 and "- allowed_safety: Only safety LoRAs" in done.stdout
    found = read_settings(file)
    assert found.require_lock and found.evidence_log and found.evidence_log.required
    file.write_text("{}")
    done = cli.run("settings", "init", file)
    assert done.returncode == 1 and "is there" in done.stderr and file.read_text() == "{}"


def test_every_setting_is_explained_as_it_is_written(file):
    said = cli.run("settings", "explain").stdout
    for name in Operator.model_fields:
        assert f'"{name}": ' in said
    for written, words, _ in rows():
        json.loads(f"{{{written}}}")
        assert words.endswith((".", ")")), written
    assert starts_with("allowed_tasks") and not starts_with("trusted_keys")
    assert not file.exists()
