"""Where verbs write: a name that says what it is, asked for before anything is read or loaded."""

import re

import pytest
from cli import run

BASE = ["--checkpoint", "none.safetensors"]
AUDIT = ["audit", ".", "--output", "r.json"]
WRONG = {
    "train-task, the chart": (["train-task", *BASE, "--data", "d"], "b.png", ".safetensors"),
    "train-task, the report": (["train-task", *BASE, "--data", "d"], "b.json", ".safetensors"),
    "train-task, its state": (["train-task", *BASE, "--data", "d"], "b.resume", ".safetensors"),
    "train-safety": (["train-safety", *BASE, "--concept", "x"], "b", ".safetensors"),
    "seal": (["seal", "lora.safetensors", "--concept", "x"], "b.png", ".safetensors"),
    "audit": (["audit", "."], "b.sqlite", ".json"),
    "interference": (
        ["interference", "l", *BASE, "--safety-lora", "s"],
        "b.safetensors",
        ".png",
    ),
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to be in, with a user's file under every name."""
    monkeypatch.chdir(tmp_path)
    names = ("b", "b.png", "b.json", "b.resume", "b.sqlite", "b.safetensors", "lora.safetensors")
    for name in names:
        (tmp_path / name).write_bytes(b"mine")
    yield tmp_path
    assert {path.name for path in tmp_path.iterdir()} == {*names}
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {b"mine"}


@pytest.mark.parametrize("case", WRONG)
def test_an_output_of_another_suffix_is_refused_first(here, case):
    verb, output, suffix = WRONG[case]
    done = run(*verb, "--output", output)
    assert done.returncode and f"'{output}' must be a name that ends in {suffix}" in done.stderr


@pytest.mark.parametrize(
    ("option", "name", "suffix"), [("--parquet", "b.json", ".parquet"), ("--html", "b", ".html")]
)
def test_files_beside_a_report_have_a_suffix_of_their_own(here, option, name, suffix):
    done = run(*AUDIT, option, name)
    assert done.returncode and f"'{name}' must be a name that ends in {suffix}" in done.stderr


@pytest.mark.parametrize(
    "verb",
    [
        ["audit-prompts", *BASE, "--prompts", "p.csv"],
        ["compare", "a=a.json", "b=b.json"],
        ["reproduce"],
    ],
)
def test_a_file_where_a_folder_is_asked_for_is_refused_first(here, verb):
    done = run(*verb, "--output", "b.png")
    assert done.returncode == 2 and "'b.png' is a file; name a folder" in done.stderr


@pytest.mark.parametrize("value", ["0", "-512", "15", "4097", "nan", "1e3", "512.0"])
def test_a_resolution_without_meaning_is_refused_first(here, value):
    done = run("train-safety", *BASE, "--output", "x.safetensors", "--resolution", value)
    assert done.returncode and re.search(
        "resolution is .* must be a whole number, at least 16 and at most 4096|invalid int value",
        done.stderr,
    )
