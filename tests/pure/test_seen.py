"""What was looked at is known again: after a restart, under the same rules, up to a bound."""

import sqlite3

import pytest
from modular_safety_lora.gates.seen import Finding, Seen

CLEAN, FLAGGED = Finding("a" * 64), Finding("b" * 64, {"FACE_FEMALE": 2})


def test_findings_outlive_the_server(tmp_path):
    first = Seen(tmp_path / "below" / "seen.sqlite")
    first.put("rules", CLEAN, FLAGGED)
    first.close()
    again = Seen(tmp_path / "below" / "seen.sqlite")
    assert again.get("rules", CLEAN.digest) == CLEAN
    found = again.get("rules", FLAGGED.digest)
    assert found == FLAGGED and found.flagged and not found.new
    again.close()


def test_under_other_rules_everything_is_looked_at_again(tmp_path):
    seen = Seen(tmp_path / "seen.sqlite")
    seen.put("rules", CLEAN)
    assert seen.get("other", CLEAN.digest) is None and seen.get("rules", "c" * 64) is None


def test_the_oldest_are_forgotten():
    seen = Seen(most=10)
    for number in range(50):
        seen.put("rules", Finding(f"{number:064d}"))
    held = [number for number in range(50) if seen.get("rules", f"{number:064d}")]
    assert held == list(range(50 - len(held), 50)) and 10 <= len(held) < 20


@pytest.mark.parametrize("content", [b"no database", b""])
def test_a_file_that_is_damaged_lets_nothing_pass(tmp_path, content, caplog):
    file = tmp_path / "seen.sqlite"
    file.write_bytes(content)
    seen = Seen(file)
    assert seen.get("rules", CLEAN.digest) is None
    seen.put("rules", CLEAN)
    assert seen.get("rules", CLEAN.digest) == CLEAN
    assert bool(caplog.records) is bool(content)


def test_a_finding_that_is_no_finding_is_looked_at_again(tmp_path):
    seen = Seen(tmp_path / "seen.sqlite")
    seen.put("rules", CLEAN)
    with sqlite3.connect(tmp_path / "seen.sqlite") as connection:
        connection.execute("update seen set counts = '[1'")
    assert seen.get("rules", CLEAN.digest) is None


def test_a_file_that_is_taken_away_lets_nothing_pass(tmp_path):
    seen = Seen(tmp_path / "seen.sqlite")
    seen.put("rules", CLEAN)
    seen.close()
    assert seen.get("rules", CLEAN.digest) is None
    seen.put("rules", FLAGGED)
