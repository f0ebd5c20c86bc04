"""The experiment on a user's own model: what is trained on what, what counts, what goes on."""

import dataclasses
import json
import shutil

import pytest
from modular_safety_lora.experiment import learning, results
from modular_safety_lora.experiment.arms import BY_NAME
from modular_safety_lora.experiment.job import SAFETY, Experiment
from modular_safety_lora.experiment.run import experiment_run, learner_of
from modular_safety_lora.modules.files import LoraFile, load_task
from modular_safety_lora.training import data
from modular_safety_lora.training.prompting import Erased
from tuned import arm_of, by_stock, experiment_of, quick

pytestmark = pytest.mark.usefixtures("one_thread", "no_plots")


@pytest.fixture(scope="module")
def no_plots():
    with quick():
        yield


@pytest.fixture(scope="module")
def asked(safety, tmp_path_factory) -> Experiment:
    """An experiment of two steps and one repetition."""
    return experiment_of(tmp_path_factory.mktemp("experiment"), safety)


@pytest.fixture(scope="module")
def done(parts, asked, no_plots) -> tuple[dict, list]:
    """The report of a whole run, and every unit that was told of."""
    told = []

    def tell(unit, count) -> bool:
        told.append((unit.words, count))
        return True

    return experiment_run(parts, asked, tell), told


@pytest.fixture
def copied(done, asked, tmp_path) -> Experiment:
    """The same, finished, in a folder of the test's own."""
    shutil.copytree(asked.folder, tmp_path / "results")
    return dataclasses.replace(asked, folder=tmp_path / "results")


def looked(parts, experiment: Experiment) -> dict:
    """The report of what is there; nothing is trained or drawn."""
    learner = learner_of(parts, experiment)
    return results.report_of(results.found_of(learner), experiment)


def test_each_arm_has_its_loras_and_all_have_the_same_prompts_and_seeds(parts, done, asked, safety):
    report, _ = done
    assert report["unfinished"] == []
    tuned = {mode: asked.training(mode, 1).file for mode in ("detached", "frozen")}
    apart, on_top = (load_task(file, file.name) for file in tuned.values())
    assert on_top.metadata["msl.safety_mode"] == "frozen"
    assert on_top.metadata["msl.safety_sha256"] == safety.sha256
    assert apart.metadata["msl.safety_mode"] == "detached"
    assert "msl.safety_sha256" not in apart.metadata
    on_it = {
        "base": set(),
        "task_only": {apart.sha256},
        "safe": {safety.sha256},
        "sequential": {safety.sha256, on_top.sha256},
        "modular": {safety.sha256, apart.sha256},
    }
    # the others are locked by Modular Merge
    stocks = {"base": [], "task_only": [apart], "sequential": [safety, on_top]}
    drawn = {}
    for name, digests in on_it.items():
        audits = [asked.audit(BY_NAME[name], kind, 1) for kind in asked.sets]
        files = [json.loads((each.job.folder / "report.json").read_text()) for each in audits]
        for file in files:
            (model,) = file["about"]["models"]
            assert {each["sha256"] for each in model["loras"]} == digests, name
        drawn[name] = [(row["prompt"], row["seed"]) for file in files for row in file["images"]]
        made = {file["summary"]["model"] for file in files}
        if name in stocks:
            assert made == {by_stock(parts, *stocks[name])}, name
        else:
            assert len(made) == 1 and not made & {
                by_stock(parts, *each) for each in stocks.values()
            }
    assert len(drawn["base"]) == 2
    assert all(each == drawn["base"] for each in drawn.values())
    assert arm_of(report, "sequential")["merges"] == arm_of(report, "modular")["merges"] == 1
    assert arm_of(report, "task_only")["stopped"] is None
    assert {path.name for path in asked.folder.iterdir()} == {
        *("audits", "loras", "report.json", "report.html", "table.md", "chart.png"),
    }


def test_a_finished_one_does_nothing_again(parts, done, copied):
    before = {path: path.stat().st_mtime_ns for path in copied.folder.rglob("*.safetensors")}
    told = []
    again = experiment_run(parts, copied, lambda *each: told.append(each) or True)
    assert again == done[0] and told == []
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_what_is_missing_or_half_done_is_said_and_is_no_zero(parts, copied):
    shutil.rmtree(copied.arm_folder(BY_NAME["modular"], 1) / "concept")
    copied.training("frozen", 1).file.unlink()
    report = looked(parts, copied)
    for name, why in (
        ("modular", "0 of 2 pictures of the concept"),
        ("sequential", "0 of 2 steps"),
    ):
        arm = arm_of(report, name)
        assert arm["seeds"] == [] and why in arm["missing"][1], arm["missing"]
        assert arm["rates"]["concept"] == {
            **{"pictures": 0, "flagged": 0, "rate": None, "rate_95": [0.0, 1.0]}
        }
    assert len(report["unfinished"]) == 2
    pairs = [each for each in report["differences"] if each["second"] == "safe"]
    assert [each["difference"] for each in pairs] == [None] * 2


def edited(experiment: Experiment, name: str, change) -> None:
    """The report of an arm's concept prompts with something changed in it."""
    file = experiment.arm_folder(BY_NAME[name], 1) / "concept" / "report.json"
    report = json.loads(file.read_text(encoding="utf-8"))
    change(report)
    file.write_text(json.dumps(report), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda report: report["images"][0].update(seed=99), "with the seed 99, not 1"),
        (lambda report: report["images"][0].update(prompt="a cat"), "of another prompt"),
        (lambda report: report["about"]["models"][0]["loras"].pop(0), "with other LoRAs"),
        (lambda report: report["about"]["models"][0].update(base_sha256="0"), "another base"),
        (lambda report: report.pop("about"), "which model made"),
        (lambda report: report["summary"].pop("images"), "can't be read"),
    ],
)
def test_an_audit_of_another_model_or_other_seeds_is_not_counted(parts, copied, change, why):
    edited(copied, "modular", change)
    arm = arm_of(looked(parts, copied), "modular")
    assert why in arm["missing"][1] and arm["rates"]["concept"]["rate"] is None


def test_what_does_not_count_is_made_again(parts, done, copied):
    edited(copied, "modular", lambda report: report["about"]["models"][0]["loras"].pop(0))
    (copied.arm_folder(BY_NAME["sequential"], 1) / "merge.json").unlink()
    arm = arm_of(looked(parts, copied), "sequential")
    assert "what Modular Merge said of it can't be read" in arm["missing"][1]
    assert experiment_run(parts, copied) == done[0]


@pytest.mark.long
def test_a_report_of_fewer_prompts_is_not_whole_and_is_made_whole(parts, done, copied):
    few = {
        kind: dataclasses.replace(prompts, prompts=prompts.prompts[:1])
        for kind, prompts in copied.sets.items()
    }
    smaller = dataclasses.replace(copied, sets=few, folder=copied.folder)
    experiment_run(parts, smaller)
    shutil.rmtree(copied.arm_folder(BY_NAME["base"], None) / "concept")
    arm = arm_of(looked(parts, copied), "safe")
    assert "2 of 2 pictures of the concept prompts made, 1 in its report" in arm["missing"][0]
    assert experiment_run(parts, copied) == done[0]


def test_a_folder_of_another_experiment_is_refused(parts, copied):
    other = dataclasses.replace(copied, task=dataclasses.replace(copied.task, steps=3))
    with pytest.raises(learning.ExperimentError, match=r"another steps \(2; now 3\)"):
        experiment_run(parts, other)
    there = copied.pictures.pictures
    for pictures in (data.sized(there[:1], 32), data.sized(there, 64)):
        with pytest.raises(learning.ExperimentError, match="another pictures"):
            experiment_run(parts, dataclasses.replace(copied, pictures=pictures))
    apart, on_top = (copied.training(mode, 1).file for mode in ("detached", "frozen"))
    shutil.copy(apart, on_top)
    with pytest.raises(learning.ExperimentError, match="another safety LoRA"):
        experiment_run(parts, copied)


def test_a_safety_lora_trained_at_another_size_is_refused(parts, copied, monkeypatch):
    asked = dataclasses.replace(copied, given=[], erased=Erased("nude", resolution=32))
    learner, training = learning.Learner(parts, asked, None), asked.training(SAFETY, 1)
    record = training.settings.record(concepts=["nude"], resolution=64)
    about = {"msl.training": record, "msl.method": "esd-x", "msl.base_sha256": learner.base_sha256}
    found = LoraFile("", "safety", "", about, {})
    monkeypatch.setattr(learning, "load_safety", lambda *_: found)
    with pytest.raises(learning.ExperimentError, match=r"another resolution \(64; now 32\)"):
        learner.checked(training)


@pytest.mark.long
def test_a_stopped_one_keeps_what_it_did_says_what_is_missing_and_goes_on(parts, done, copied):
    files = [copied.training(mode, 1).file for mode in ("detached", "frozen")]
    for name in ("sequential-1", "modular-1"):
        shutil.rmtree(copied.folder / "audits" / name)
    for each in files[1].parent.glob("task-on-top-1.*"):
        each.unlink()
    with pytest.raises(learning.Stopped):
        experiment_run(parts, copied, lambda unit, done: done < 1)
    assert copied.training("frozen", 1).done() == 1
    said = json.loads((copied.folder / "report.json").read_text(encoding="utf-8"))
    assert "1 of 2 steps trained" in arm_of(said, "sequential")["missing"]["1"]
    assert "Unfinished:" in (copied.folder / "report.html").read_text(encoding="utf-8")
    told = []
    assert experiment_run(parts, copied, lambda *each: told.append(each) or True) == done[0]
    assert [count for unit, count in told if unit.words == copied.training("frozen", 1).words] == [
        2
    ]
