"""The verb `log`: verify, summary, show and the page, on a real log."""

import json

import cli
import pytest
from modular_safety_lora.evidence.files import files_of
from test_evidence_signals import spoken


@pytest.fixture
def folder(tmp_path):
    spoken(tmp_path / "log")
    return tmp_path / "log"


def test_verify_has_an_exit_code_and_a_digest_to_keep(folder):
    done = cli.run("log", "verify", "--folder", folder)
    assert done.returncode == 0 and "The log is whole: 17 lines in 1 file." in done.stdout
    digest = done.stdout.split()[-1]
    assert cli.run("log", "verify", "--folder", folder, "--known", digest).returncode == 0
    assert (
        json.loads(cli.run("log", "verify", "--folder", folder, "--json").stdout)["digest"]
        == digest
    )
    file = files_of(folder)[0]
    file.write_bytes(file.read_bytes().replace(b"anna", b"anne", 1))
    done = cli.run("log", "verify", "--folder", folder)
    assert done.returncode == 1 and "NOT AS IT WAS WRITTEN" in done.stdout
    assert (
        cli.run("log", "page", "--folder", folder, "--output", folder / "page.html").returncode == 1
    )


def test_summary_and_show_say_what_happened(folder):
    said = cli.run("log", "summary", "--folder", folder).stdout
    assert "1 prompt without an end: they wait, run, or were cut off." in said
    assert "| NoLock" in said and "| anna" in said and "| strict" in said
    assert (
        json.loads(cli.run("log", "summary", "--folder", folder, "--json").stdout)["total"][
            "flagged"
        ]
        == 5
    )
    lines = cli.run("log", "show", "--folder", folder).stdout.splitlines()
    assert len(lines) == 16 and "started" in lines[0]
    (line,) = cli.run(
        "log", "show", "--folder", folder, "--kind", "refused", "--last", 1
    ).stdout.splitlines()
    assert "refused (c1) no" in line
    shown = cli.run(
        "log", "show", "--folder", folder, "--user", "anna", "--json"
    ).stdout.splitlines()
    assert [json.loads(each)["facts"]["user"] for each in shown] == ["anna"] * 9


def test_the_page_is_written_where_it_is_asked_for(folder, tmp_path):
    done = cli.run("log", "page", "--folder", folder, "--output", tmp_path / "log.html")
    assert done.returncode == 0
    assert "The log is whole." in (tmp_path / "log.html").read_text(encoding="utf-8")
    done = cli.run("log", "page", "--folder", folder)
    assert done.returncode == 1 and "needs --output" in done.stderr


def test_there_is_no_log_to_verify(tmp_path):
    done = cli.run("log", "verify", "--folder", tmp_path)
    assert done.returncode == 1 and "There is no evidence log in" in done.stderr
