"""Options of the audits without a meaning are refused before anything is looked at or written."""

import pytest
from modular_safety_lora.audit.rules import Rules
from modular_safety_lora.commands import main
from picture_folders import FACES, small_pictures


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--frames", "0"], "frames is 0; it must be a whole number, at least 1"),
        (["--frames", "-3"], "frames is -3"),
        (["--megapixels", "nan"], "megapixels is nan; it must be a finite number"),
        (["--megapixels", "inf"], "megapixels is inf"),
        (["--megapixels", "0"], "megapixels is 0.0"),
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
    with pytest.raises(ValueError, match="frames is 0"):
        Rules(FACES.preset, frames=0)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("compare a=absent.json b=absent.json --output c", "absent.json: there is no such file"),
        ("compare a=folder b=folder --output c", "folder: it is a folder; name a file"),
        ("new-key absent/key.pem", "written there (there is no such file or folder; check its"),
        ("new-key folder", "written there (something of this name is there; choose another name)"),
        ("sign absent.pem folder/x.safetensors", "absent.pem: there is no such file"),
        ("inspect absent.safetensors", "can't be read: there is no such file or folder; check"),
        (
            "audit folder --output file/r.json",
            "written in its folder (something of this name is there). Ch",
        ),
        ("audit folder --output r.json --preset-file absent.json", "read (there is no such"),
        ("audit folder --output r.json --detectors folder", "read (it is a folder; name a"),
    ],
)
def test_what_the_system_says_of_a_file_is_in_words_with_a_way_out(
    command, said, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("not a folder")
    assert main(command.split()) == 1
    told = "".join(capsys.readouterr())
    assert said in told and "Errno" not in told and "No such file" not in told
