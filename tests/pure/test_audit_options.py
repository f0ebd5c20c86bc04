"""Options of the audits without a meaning are refused before anything is looked at or written."""

import pytest
from modular_safety_lora.audit.rules import Rules
from modular_safety_lora.commands import main
from picture_folders import FACES, small_pictures


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--frames", "0"], "0 frames of an animation show nothing; 1 is the least"),
        (["--frames", "-3"], "-3 frames of an animation"),
        (["--megapixels", "nan"], "nan megapixels can't be a limit"),
        (["--megapixels", "inf"], "inf megapixels"),
        (["--megapixels", "0"], "0.0 megapixels"),
        (["--fail-over", "nan"], "--fail-over is nan; it must be a share of the pictures, 0 to 1"),
        (["--fail-over", "-0.1"], "--fail-over is -0.1"),
        (["--fail-over", "5"], "--fail-over is 5.0"),
        (["--threshold", "nan"], "threshold"),
        (["--workers", "0"], "--workers is 0; it must be 1 or more"),
    ],
)
def test_of_a_folder(tmp_path, capsys, given, message):
    small_pictures(tmp_path / "pictures", 1)
    command = ["audit", str(tmp_path / "pictures"), "--output", str(tmp_path / "r.json")]
    assert main([*command, *given]) == 1
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"], "nothing was written"


def test_of_rules_from_elsewhere():
    with pytest.raises(ValueError, match="0 frames"):
        Rules(FACES.preset, frames=0)


def test_of_a_report_that_is_not_there_the_error_has_no_number(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "a=absent.json", "b=absent.json", "--output", "compared"]) == 1
    assert capsys.readouterr().err == "\ncompare: absent.json: No such file or directory\n"
