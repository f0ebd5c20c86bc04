"""The short form of a report: what is sealed, what is refused, and what is shown of it."""

import json

import pytest
from cli import run
from modular_safety_lora.modules.errors import ModuleFileError
from modular_safety_lora.modules.files import load_safety, save_module
from modular_safety_lora.modules.sealing import Sealing, inspect, seal_file, seal_report
from modular_safety_lora.modules.short_report import KEY, report_line
from modular_safety_lora.modules.signing import new_key, sign_file, signer
from test_sealing import lora, plain

__all__ = ["plain"]
LINE = (
    "weapons: 29 % of 28 pictures as told, 36 % of 14 others; base 100 %; near pictures changed"
    " 12 %"
)


@pytest.fixture
def sealed(plain, tmp_path):
    seal_file(plain, tmp_path / "sealed.safetensors", Sealing("weapons", 0.8))
    return tmp_path / "sealed.safetensors"


def report(path, **more) -> dict:
    """A report of a sealed file, as Report Safety LoRA writes it."""
    module = load_safety(path, path.name)
    short = {
        "format": 1,
        "date": "2026-01-31",
        "base": "base.safetensors",
        "tensors_sha256": module.metadata["msl.tensors_sha256"],
        "strength": module.sealed_strength,
        "preset": "weapons",
        "detector": "looker 1 0123456789ab",
        "told": {"pictures": 28, "base": 28, "safe": 8},
        "others": {"pictures": 14, "base": 14, "safe": 5},
        "near": {"pictures": 24, "changed": 3},
    }
    return {"partial": "", "short": short | more}


def test_a_report_is_sealed_and_shown_and_all_else_stays(sealed, tmp_path):
    before = load_safety(sealed, "before")
    digest = seal_report(sealed, tmp_path / "new.safetensors", json.dumps(report(sealed)))
    after = load_safety(tmp_path / "new.safetensors", "after", digest)
    assert after.sha256 != before.sha256 and report_line(after.metadata) == LINE
    assert len(after.metadata[KEY].encode()) <= 1000
    same = {key: after.metadata[key] for key in after.metadata if key not in (KEY, "msl.seal")}
    assert same == {key: before.metadata[key] for key in before.metadata if key != "msl.seal"}
    assert report_line(before.metadata) == "no report"
    assert inspect(tmp_path / "new.safetensors")["report"] == LINE
    with pytest.raises(FileExistsError):
        seal_report(sealed, tmp_path / "new.safetensors", json.dumps(report(sealed)))


def test_a_report_is_sealed_with_a_lora_for_the_first_time(plain, sealed, tmp_path):
    told = json.dumps(report(sealed)["short"])
    seal_file(plain, tmp_path / "x.safetensors", Sealing("weapons", 0.8), report=told)
    assert inspect(tmp_path / "x.safetensors")["report"] == LINE


def test_another_numbers_in_the_file_break_the_seal(sealed, tmp_path):
    new = tmp_path / "new.safetensors"
    seal_report(sealed, new, json.dumps(report(sealed)))
    whole = new.read_bytes()
    forged = whole.replace(b'\\"safe\\":8', b'\\"safe\\":0')
    assert forged != whole
    new.write_bytes(forged)
    with pytest.raises(ModuleFileError, match="changed after it was sealed"):
        load_safety(new, new.name)


def test_a_signature_is_of_the_former_seal_and_goes(sealed, tmp_path):
    new_key(tmp_path / "key.pem")
    sign_file(sealed, tmp_path / "key.pem")
    seal_report(sealed, tmp_path / "new.safetensors", json.dumps(report(sealed)))
    assert signer(load_safety(sealed, "x")) is not None
    assert signer(load_safety(tmp_path / "new.safetensors", "x")) is None


WRONG = {
    "NaN": ({"told": {"pictures": 28, "base": 28, "safe": float("nan")}}, "NaN"),
    "negative": ({"told": {"pictures": 28, "base": 28, "safe": -1}}, "at least 0"),
    "more than all": ({"told": {"pictures": 28, "base": 28, "safe": 29}}, "29 of 28 pictures"),
    "no pictures": ({"told": {"pictures": 0, "base": 0, "safe": 0}}, "at least 1"),
    "without the base": ({"told": {"pictures": 28, "safe": 0}}, "`told.base` is missing"),
    "a share": ({"told": {"pictures": 28, "base": 28, "safe": 0.5}}, "a whole number"),
    "a text": ({"told": {"pictures": 28, "base": 28, "safe": "0"}}, "a whole number"),
    "true": ({"told": {"pictures": 28, "base": 28, "safe": True}}, "a whole number"),
    "changed": ({"near": {"pictures": 2, "changed": 3}}, "3 of 2 pictures"),
    "without what it was told": ({"told": None}, "an object"),
    "another format": ({"format": 2}, "one of 1"),
    "another LoRA": ({"tensors_sha256": "0" * 64}, "of another LoRA"),
    "another strength": ({"strength": 1.0}, "measured at strength 1"),
    "an unknown name": ({"safe_rate": 0.0}, "there is no `safe_rate`"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_is_not_sealed_and_not_shown_as_clean(sealed, tmp_path, what):
    more, said = WRONG[what]
    told = report(sealed, **more)
    with pytest.raises(ModuleFileError, match=said):
        seal_report(sealed, tmp_path / "new.safetensors", json.dumps(told))
    module = load_safety(sealed, "x")  # somebody else's tool may seal anything
    other = {**module.metadata, KEY: json.dumps(told["short"])}
    save_module(tmp_path / "other.safetensors", module.tensors, other, "safety")
    shown = report_line(load_safety(tmp_path / "other.safetensors", "x").metadata)
    assert shown.startswith("report not readable: ") and "%" not in shown


@pytest.mark.parametrize("text", ["", "[]", "null", "1", "{", '{"a": 1, "a": 2}', "[" * 5000])
def test_what_is_no_report_is_not_sealed_and_not_shown_as_none(sealed, tmp_path, text):
    with pytest.raises(ModuleFileError, match="The report can't be sealed"):
        seal_report(sealed, tmp_path / "new.safetensors", text)
    about = dict(load_safety(sealed, "x").metadata) | {KEY: text}
    assert report_line(about).startswith("report not readable: ")


def test_a_partial_report_and_a_long_one_are_not_sealed(sealed, tmp_path):
    for told, said in (
        (report(sealed) | {"partial": "The run was stopped."}, "it is partial"),
        (report(sealed) | {"short": None}, "no pictures of the sealed prompts"),
        (report(sealed, detector="x" * 81), "`detector`"),
        (report(sealed, detector="\N{SNOWMAN}" * 80, base="\N{SNOWMAN}" * 80), "at most 1000 are"),
    ):
        with pytest.raises(ModuleFileError, match=said):
            seal_report(sealed, tmp_path / "new.safetensors", json.dumps(told))
    about = dict(load_safety(sealed, "x").metadata)
    long = json.dumps(report(sealed)["short"]) + " " * 1000
    assert report_line(about | {KEY: long}) == "report not readable: it has more than 1000 bytes"


def test_the_verb_seals_a_report_and_inspect_prints_it(plain, sealed, tmp_path):
    file, new = tmp_path / "report.json", tmp_path / "new.safetensors"
    file.write_text(json.dumps(report(sealed)), encoding="utf-8")
    done = run("seal", sealed, "--report", file, "--output", new)
    assert done.returncode == 0, done.stderr
    assert f"report: {LINE}" in run("inspect", new).stdout
    assert "report: no report" in run("inspect", sealed).stdout
    refused = run("seal", tmp_path, "--report", file, "--output", tmp_path / "all")
    assert refused.returncode == 1 and "name one file" in refused.stderr
    assert lora().keys() == load_safety(new, "x").tensors.keys()
