"""The node Measure Quality and the verb: runs by name or report, and the comparison they add to."""

import json
from pathlib import Path

import folder_paths
import pytest
from clip_halves import write_halves
from modular_safety_lora.audit.cost import cost_rows, costs
from modular_safety_lora.audit.reading import CompareError
from modular_safety_lora.commands import main
from modular_safety_lora.nodes.compare_audits import CompareAudits
from modular_safety_lora.nodes.measure_quality import MeasureQuality
from PIL import Image
from quality_runs import TWELVE, changed, pair, pictures, run_folder


@pytest.fixture
def output(tmp_path, monkeypatch) -> Path:
    """ComfyUI's output folder with a run of the base, and of the safe model."""
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path / "input"))
    audits = tmp_path / "output" / "audits"
    run_folder(audits / "base", pictures(12), TWELVE, flagged=(1, 2))
    run_folder(audits / "safe", changed(pictures(12)), TWELVE)
    return audits


def report_of(folder: Path) -> str:
    return (folder / "report.json").read_text(encoding="utf-8")


def test_runs_are_named_or_linked_by_their_reports(output):
    named = MeasureQuality.execute(*pair(), "safe", "base")
    report, words, sheet = named.args
    assert words.startswith("**") and "CLIP score" in words and "Against base:" in words
    assert Path(words.rpartition("- Page with pictures: ")[2]) == output / "safe" / "quality.html"
    assert sheet.shape[3] == 3 and sheet.shape[1] > 500 and named.ui["text"] == (words,)
    linked = MeasureQuality.execute(*pair(), report_of(output / "safe"), report_of(output / "base"))
    assert linked.args[0] == report and json.loads(report)["change"]["pairs"] == 12
    alone = MeasureQuality.execute(*pair(), "safe", "")
    assert "Against" not in alone.args[1] and alone.args[2].shape[1] < 100


def test_a_new_picture_is_measured_and_what_a_measure_writes_is_none(output):
    before = MeasureQuality.fingerprint_inputs("safe", "base")
    MeasureQuality.execute(*pair(), "safe", "base")
    assert MeasureQuality.fingerprint_inputs("safe", "base") == before
    (output / "safe" / "report.json").write_text("{}", encoding="utf-8")
    assert MeasureQuality.fingerprint_inputs("safe", "base") != before
    assert MeasureQuality.fingerprint_inputs(None, "not there") == "[]"


@pytest.mark.long
def test_photographs_of_the_input_folder_are_measured_against(output, tmp_path):
    photos = tmp_path / "input" / "photos"
    photos.mkdir(parents=True)
    for place, each in enumerate(pictures(10, seed=3)):
        Image.fromarray(each).save(photos / f"{place}.png")
    report = json.loads(MeasureQuality.execute(*pair(), "safe", "photos").args[0])
    assert report["cmmd"]["pictures"] == [12, 10] and report["change"] is None
    words = MeasureQuality.execute(*pair(), "photos", "").args[1]
    assert "No picture has a prompt" in words and len(list(photos.iterdir())) == 10
    assert (output / "quality" / "photos" / "quality.html").is_file()


@pytest.mark.parametrize(
    ("run", "words"),
    [
        ("", "run is empty"),
        ("../outside", "not the name of a run"),
        ("not there", "there is no such folder"),
        ('{"verdict": 1}', "not the report of Audit Prompt Set"),
        ('{"about": {"run": "../outside"}}', "not the name of a run"),
    ],
)
def test_what_is_no_run_is_refused(output, run, words):
    with pytest.raises(ValueError, match=words):
        MeasureQuality.execute(*pair(), run, "")


def test_a_name_that_leads_out_is_refused_before_anything_runs():
    assert MeasureQuality.validate_inputs("safe", "base") is True
    assert MeasureQuality.validate_inputs(None, "", None, "a/b") is True
    assert "is not the name" in MeasureQuality.validate_inputs("safe", "/etc")
    assert "is not the name" in MeasureQuality.validate_inputs("safe", "", "", "../x")


def test_runs_of_other_prompts_give_no_robustness(output):
    run_folder(output / "harmful", [None] * 4, ["x"])
    run_folder(output / "tuned", [None] * 4, ["x"])
    report = json.loads((output / "tuned" / "report.json").read_text(encoding="utf-8"))
    report["summary"]["preset"] = "another"
    (output / "tuned" / "report.json").write_text(json.dumps(report), encoding="utf-8")
    with pytest.raises(CompareError, match="not audited in the same way"):
        MeasureQuality.execute(*pair(), "safe", "base", "harmful", "tuned")


def compared(output: Path) -> str:
    reports = {
        f"report{place}": report_of(output / each) for place, each in enumerate(("base", "safe"))
    }
    return CompareAudits.execute(reports, names="base, safe").args[2]


def test_compare_audits_shows_the_figures_when_they_are_there(output, capsys):
    assert "What safety costs" not in compared(output) and "against" in compared(output)
    MeasureQuality.execute(*pair(), "safe", "base")
    found = json.loads((output / "safe" / "quality.json").read_text(encoding="utf-8"))
    text = compared(output)
    row = next(line for line in text.splitlines() if f"{found['cmmd']['published']:.3f}" in line)
    assert [each.strip() for each in row.split("|")][4] == "base"
    page = Path(text.rpartition("- Page: ")[2]).read_text(encoding="utf-8")
    assert "What safety costs" in page and f"{found['change']['cosine']:.3f}" in page
    named = [f"{each}={output / each / 'report.json'}" for each in ("base", "safe")]
    assert main(["compare", *named, "--output", str(output / "out")]) == 0
    assert row in capsys.readouterr().out
    # another report, as a run that went on writes it
    file = output / "safe" / "report.json"
    file.write_text(report_of(output / "safe") + "\n", encoding="utf-8")
    there = {"safe": (output / "safe", report_of(output / "safe"))}
    assert cost_rows(costs(there)) == [["safe", "measured before its report changed", *"----"]]
    (output / "safe" / "quality.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="the figures can't be read"):
        costs(there)


@pytest.mark.long
def test_the_verb_measures_with_files_of_the_real_sizes(output, tmp_path, capsys):
    write_halves(tmp_path / "vision.safetensors", tmp_path / "text.safetensors")
    files = [f"--clip-vision={tmp_path}/vision.safetensors", f"--clip={tmp_path}/text.safetensors"]
    runs = [str(output / "safe"), "--against", str(output / "base")]
    assert main(["quality", *runs, *files]) == 0
    assert "Against base" in capsys.readouterr().out
    assert json.loads((output / "safe" / "quality.json").read_text())["change"]["pairs"] == 12
    assert main(["quality", *runs, files[0], f"--clip={tmp_path}/vision.safetensors"]) == 1


def test_the_verb_says_what_is_missing_before_it_loads_anything(output, tmp_path, capsys):
    files = ["--clip-vision", str(tmp_path / "a"), "--clip", str(tmp_path / "b")]
    assert main(["quality", str(tmp_path), *files]) == 1
    assert "Name a folder for the results with --output" in capsys.readouterr().err
    assert main(["quality", str(output / "safe"), *files]) == 1
    assert "there is no such file" in capsys.readouterr().err
    wrong = ["--best-cmmd", "2", "--worst-cmmd", "1"]
    assert main(["quality", str(output / "safe"), *files, *wrong]) == 1
    assert "the best is the smaller" in " ".join(capsys.readouterr().err.split())
