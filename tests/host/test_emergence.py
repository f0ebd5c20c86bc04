"""Re-emergence in the emoji world, small: what each arm is, a run that goes on, and the report."""

import dataclasses
import json
import shutil

import pytest
import torch
from modular_safety_lora.emoji import checkpoint
from modular_safety_lora.lab.world import (
    emergence,
    measures,
    pictures,
    recipe,
    report,
    reproduce,
    styles,
    weapons,
)
from PIL import Image
from safetensors import safe_open

pytestmark = [pytest.mark.usefixtures("one_thread", "no_chart"), pytest.mark.long]
SMALL = recipe.Recipe(
    safety={"held": recipe.Erased("esd-x", steps=2, rate=1e-2, retain=True)},
    safety_sampling_steps=2,
    task_steps=2,
    task_rate=1e-2,
    sampling_steps=1,
    retained=recipe.RETAINED[:1],
    prior=recipe.PRIOR[:3],
    every=100,
)
SEED = 1
OF_DATA = ("prior_pictures", "prior_sha256", "dataset_sha256")


@pytest.fixture(scope="module", autouse=True)
def few():
    """A prompt of each kind, and the shipped pictures in the place of those that are fetched."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "CONCEPTS", recipe.CONCEPTS[:1])
        for name in ("LEARNED", "HELD_OUT"):
            patch.setattr(recipe, name, getattr(recipe, name)[:2])
        patch.setattr(measures, "HARMLESS", measures.HARMLESS[:4])  # one in each style
        shipped = pictures.task_pictures()
        patch.setattr(pictures, "named", lambda wanted: {each.style: shipped for each in wanted})
        patch.setattr(measures, "NOISES", 1)
        yield


@pytest.fixture(scope="module")
def base(comfyui, tmp_path_factory):
    """The shipped base as a checkpoint, with the texts that the arms share."""
    file = tmp_path_factory.mktemp("base") / checkpoint.CHECKPOINT
    checkpoint.write(file)
    emergence.Model(file).keep(SMALL.every_text)
    return file


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The folder of one run, with a judge of styles that knows nothing."""
    folder = tmp_path_factory.mktemp("emergence")
    judge = styles.style_looker()
    torch.save(judge.state_dict(), reproduce.judge_file(folder))
    return folder


@pytest.fixture(scope="module")
def rows(base, place):
    for method in ("any", *SMALL.safety):
        reproduce.work(method, SEED, SMALL, place, base)
    found = [json.loads(file.read_text()) for file in sorted(place.glob("*.json"))]
    assert len(found) == len(list(place.glob("*.png"))) == 2 + 4
    return found


def test_every_arm_is_trained_as_its_name_says(rows, place):
    def told(name: str) -> dict:
        with safe_open(place / "modules" / f"{name}-{SEED}.safetensors", "pt") as file:
            return file.metadata()

    modes = {arm: told(f"{arm}-held")["msl.safety_mode"] for arm in ("sequential", "anchored")}
    assert modes == {"sequential": "frozen", "anchored": "anchored"}
    assert told("modular-any")["msl.safety_mode"] == "detached"
    assert "msl.safety_sha256" not in told("modular-any")
    retained = json.loads(told("safety-held")["msl.training"])["retain"]
    assert retained == list(SMALL.retained)
    data = {
        tuple(json.loads(told(name)["msl.training"])[each] for each in OF_DATA)
        for name in ("modular-any", "sequential-held", "anchored-held")
    }
    assert len(data) == 1, "the task arms do not have the same pictures"
    assert data.pop()[0] == len(SMALL.prior)


def test_an_arm_samples_with_its_modules_and_no_other(rows, place, base):
    stage = emergence.Stage(emergence.Model(base), SMALL, SEED, place / "modules")

    def patched(arm: str) -> dict[str, int]:
        return {key: len(each) for key, each in stage.model_of(arm, "held").patches.items()}

    safe = patched("safe")
    assert patched("base") == {} and safe == patched("task_only")  # both train the attention
    assert patched("sequential") == {key: 2 * each for key, each in safe.items()}
    assert patched("modular") == patched("anchored") == patched("sequential")


def test_what_was_encoded_is_not_encoded_again(base, tmp_path, monkeypatch):
    own = tmp_path / base.name
    own.symlink_to(base)
    made = emergence.Model(own)
    made.keep(["cat, noto"])
    monkeypatch.setattr(emergence, "encode_texts", None)
    again = emergence.Model(own).texts(["cat, noto"])
    assert again.keys() == {"cat, noto", ""}
    for words, (tensor, _) in ((words, each[0]) for words, each in again.items()):
        assert torch.equal(tensor, made.known[words][0][0])
    first, captions = made.of_task(recipe.HELD_OUT)
    monkeypatch.setattr(made, "vae", None)
    assert made.of_task(recipe.HELD_OUT) == (first, captions)


def test_a_lost_row_is_made_again_the_same_and_no_other(rows, place, base):
    lost = reproduce.row_file(place, "sequential", "held", SEED)
    before = json.loads(lost.read_text())
    others = {file: file.stat().st_mtime_ns for file in place.glob("*.json") if file != lost}
    lost.unlink()
    reproduce.work("held", SEED, SMALL, place, base)
    again = json.loads(lost.read_text())
    near = pytest.approx(before["cosine"], abs=1e-6)  # its last digit may differ
    assert again | {"seconds": 0} == before | {"seconds": 0, "cosine": near}
    assert {file: file.stat().st_mtime_ns for file in others} == others


def test_the_report_has_every_arm_and_its_differences_by_hand(rows, place, tmp_path, capsys):
    reproduce.write(place, [SEED], SMALL, tmp_path)
    with Image.open(tmp_path / "rates.png") as drawn:
        assert drawn.width > 500 and len(drawn.getcolors(1 << 20)) > 50
    with Image.open(tmp_path / "samples-held.jpg") as drawn:
        sheets = [Image.open(file) for file in place.glob("*.png")]
        assert drawn.height == sum(each.height + 44 for each in sheets) and len(sheets) == 6
    results = json.loads((tmp_path / "results.json").read_text())
    assert len(results["summary"]) == len(emergence.ARMS)
    of = {(row["arm"], row["method"]): row for row in results["rows"]}
    assert all(of[row["arm"], row["method"]]["task_loss"] == row["task_loss"] for row in rows)
    loss = of["modular", "held"]["task_loss"] / of["task_only", "any"]["task_loss"]
    (entry,) = (
        each for each in results["summary"] if (each["method"], each["arm"]) == ("held", "modular")
    )
    assert entry["task_loss_ratio"]["mean"] == pytest.approx(loss)
    (test,) = (
        each
        for each in results["tests"]
        if (each["method"], each["first"], each["prompts"]) == ("held", "sequential", "all")
    )
    flags = ["".join(of[arm, "held"]["flags"].values()) for arm in ("sequential", "safe")]
    by_hand = (flags[0].count("1") - flags[1].count("1")) / len(flags[0])
    assert test["difference"] == pytest.approx(by_hand)
    assert (tmp_path / "table.md").read_text().count("\n| held") == len(results["summary"]) + len(
        results["tests"]
    )


def test_the_short_form_needs_no_pictures_that_are_fetched(place, base, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "named", None)
    short = dataclasses.replace(SMALL, fetched=False)
    folder = tmp_path / "rows"
    shutil.copytree(place / "modules", folder / "modules")
    for method in ("any", *short.safety):
        reproduce.work(method, SEED, short, folder, base)
    reproduce.write(folder, [SEED], short, tmp_path / "results")
    results = json.loads((tmp_path / "results" / "results.json").read_text())
    assert len(results["rows"]) == 6
    assert all(
        each["right_style"] is each["others_loss_ratio"] is None for each in results["summary"]
    )
    table = (tmp_path / "results" / "table.md").read_text()
    assert f"| {report.SAID['modular']} | " in table and "nan" not in table


def test_rows_are_kept_for_one_recipe_and_another_detector_needs_no_sampling(
    rows, place, tmp_path, monkeypatch
):
    assert reproduce.work_folder(recipe.Recipe()) != reproduce.work_folder(SMALL)
    before = {file: file.stat().st_mtime_ns for file in place.iterdir()}

    def always(pictures: torch.Tensor) -> torch.Tensor:
        return torch.eye(len(weapons.CLASSES))[torch.zeros(len(pictures), dtype=int)]

    monkeypatch.setattr(weapons, "shipped", lambda: always)
    reproduce.write(place, [SEED], SMALL, tmp_path)
    kept = json.loads((tmp_path / "results.json").read_text())
    assert all(each["rates"]["all"]["rate"] == 1 for each in kept["summary"])
    assert {file: file.stat().st_mtime_ns for file in place.iterdir()} == before
