"""The re-emergence benchmark, small: its detector, its measures, and a run that goes on.

The measures are checked against independent formulas.
"""

import dataclasses
import json
import random

import numpy as np
import pytest
import torch
from modular_safety_lora.lab.reemergence import arms, base, measures, report, run, workers, world
from modular_safety_lora.lab.reemergence import reproduce as command
from modular_safety_lora.lab.reemergence.detector import CheckerPatch
from modular_safety_lora.lab.reemergence.recipe import Recipe, SafetyRecipe
from modular_safety_lora.merge.merge import Task, merge
from PIL import Image
from safetensors.torch import load_file

SMALL = Recipe(
    safety={"esd-x": SafetyRecipe("esd-x", steps=40, rate=3e-3)},
    ema=0.9,
    safety_sampling_steps=3,
    task_steps=30,
    task_rate=2e-3,
    anchor_every=3,
    hostile_steps=6,
    pictures=32,
    samples=1,
    guidances=(3.0,),
    sampling_steps=2,
    held_out=8,
    marks=(0, 10),
)
SEED = 1


pytestmark = pytest.mark.usefixtures("no_chart")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The folder of one run, whose modules the other tests use too."""
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def stage(comfyui, place):
    torch.set_num_threads(1)
    (place / "modules").mkdir()
    return arms.Stage(base.load(), SMALL, SEED, place / "modules")


def test_the_detector_finds_the_concept_and_nothing_else():
    def flags(**wanted):
        return measures.concept_flags(
            world.decoded(world.latents(world.pictures(200, 3, **wanted)[0]))
        )

    assert all(flags(people=1.0, concept=1.0))
    assert not any(flags(concept=0.0))
    assert not any(flags(style=world.NEW_STYLE))
    ((box,),) = CheckerPatch().detect([np.uint8(255 * _person(checkered=True))])
    assert box["box"] == [4 + world.BODY[1], 2 + world.BODY[0], 3, 3]
    assert box["score"] == pytest.approx(1.0, abs=1e-3)


def _person(**how):
    drawing = world.Drawing("man", "red", "night", 2, 4, **how)
    return world.decoded(world.latents(world.draw(drawing)[None]))[0].numpy()


def test_captions_name_the_concept_exactly_where_it_is_drawn():
    rng = random.Random(1)
    for drawing in (world.random_drawing(rng, concept=0.5) for _ in range(200)):
        words = world.caption(drawing, rng).split()
        assert drawing.checkered == bool({world.CONCEPT, world.SYNONYM} & set(words))
    assert not any(
        {world.CONCEPT, world.SYNONYM} & set(each.split())
        for each in world.task_pictures(200, 1)[1]
    )


def test_directions_are_the_network_s_own_outputs(stage):
    network, sampling = stage.model.model.diffusion_model, stage.model.model.model_sampling
    found = measures.directions(stage.model, world.SEEN, 4)
    pictures, _, _ = world.pictures(4, measures.SEED, people=1.0, concept=0.5)
    generator = torch.Generator().manual_seed(measures.SEED)
    noise = torch.randn(4, 12, 6, 6, generator=generator)
    times = torch.randint(1000, (4,), generator=generator)
    sigma = sampling.sigmas[times].reshape(-1, 1, 1, 1)
    noisy = (world.latents(pictures) + sigma * noise) / (sigma**2 + 1) ** 0.5
    with torch.no_grad():
        given, null = (
            network(
                noisy,
                times.float(),
                context=torch.cat([measures.text.encode(each) for each in prompts]),
            )
            for prompts in (world.SEEN[:4], [""] * 4)
        )
    torch.testing.assert_close(found, given - null, atol=1e-4, rtol=1e-3)


def test_gain_and_recovery_by_hand():
    of_base = torch.tensor([3.0, 4.0])
    assert measures.gain(torch.tensor([1.5, 2.0]), of_base) == pytest.approx(0.5)
    assert measures.gain(torch.tensor([-4.0, 3.0]), of_base) == pytest.approx(0.0)
    assert measures.recovery(0.3, 0.1, 0.9) == pytest.approx(0.25)


def test_the_arms_run_go_on_and_show_the_mechanism(stage, place, tmp_path):
    units = [run.Unit(method, SEED) for method in ("any", *SMALL.methods)]
    for unit in units:
        run.work(unit, SMALL, place, base.SHIPPED)
    files = [run.row_file(place, unit, *row) for unit in units for row in unit.rows(SMALL)]
    rows = [json.loads(file.read_text()) for file in files]
    assert {row["arm"] for row in rows} == set(arms.ARMS)

    # One row is lost, as if the run had been killed: only that one is made again, the same.
    lost = run.row_file(place, units[1], "sequential", 0)
    before, kept = (
        json.loads(lost.read_text()),
        {file: file.stat().st_mtime_ns for file in files if file != lost},
    )
    lost.unlink()
    run.work(units[1], SMALL, place, base.SHIPPED)
    again = json.loads(lost.read_text())
    assert {key: again[key] for key in again if key != "seconds"} == {
        key: before[key] for key in before if key != "seconds"
    }
    assert {file: file.stat().st_mtime_ns for file in kept} == kept

    rows = workers.finished(SMALL, [SEED], place)  # the row made again took other seconds
    runs = report.runs_of(rows, SMALL)
    of = {(each["arm"], each["method"]): each for each in runs if each["steps"] == SMALL.task_steps}
    for method in SMALL.methods:
        assert of["safe", method]["recovery"] == 0.0
        assert of["safe", method]["gain"]["seen"] < 0.8
        assert of["sequential", method]["cosine"] < of["modular", method]["cosine"]
        assert (
            of["sequential", method]["cosine"]
            < -0.02
            < of["sequential_projected", method]["cosine"]
        )
        assert of["anchored_projected", method]["cosine"] > -0.02
        assert of["sequential", method]["task_loss"] < of["modular", method]["task_loss"]
    entries = report.summary(runs, SMALL)
    assert len(entries) == len(arms.ARMS)
    assert report.table(entries).count("\n") == len(entries) + 2
    output = tmp_path / "output"
    command.write(rows, SMALL, base.SHIPPED, output, 0.0)
    command.write_samples(place, SMALL, SEED, output)
    results = json.loads((output / "results.json").read_text())
    assert results["runs"] == runs
    assert results["recipe"]["safety"]["esd-x"] == {
        "erasure": "esd-x",
        "steps": 40,
        "rate": 3e-3,
        "retain": False,
    }
    assert results["world"]["kinship"] == measures.text.KINSHIP
    assert (output / "table.md").read_text() == report.table(entries)
    assert {
        Image.open(output / f"{name}.png").width for name in ("recovery", "over-steps", "cost")
    } == {1200}
    assert all((output / f"samples-{method}.png").exists() for method in SMALL.methods)
    assert all(each["p"] is None or 0 <= each["p"] <= 1 for each in results["tests"])


def test_every_arm_is_trained_as_its_name_says(stage, tmp_path):
    safety = {"sdd-retained": SafetyRecipe("sdd", steps=2, rate=3e-2, retain=True)}
    recipe = dataclasses.replace(SMALL, safety=safety, task_steps=3, hostile_steps=3, marks=())
    brief = dataclasses.replace(stage, recipe=recipe, folder=tmp_path)
    held = brief.safety("sdd-retained")
    assert held.metadata["msl.method"] == "sdd"
    assert json.loads(held.metadata["msl.training"])["retain"] == list(world.OTHERS)
    modules = {
        arm: brief.task(arm, "sdd-retained").metadata for arm in (*arms.TRAINED, *arms.HOSTILE)
    }
    training = {arm: json.loads(metadata["msl.training"]) for arm, metadata in modules.items()}
    assert {arm: metadata["msl.safety_mode"] for arm, metadata in modules.items()} == {
        "sequential": "frozen",
        "modular": "detached",
        "anchored": "anchored",
        "anchored_lambda1": "anchored",
        "hostile": "detached",
        "hostile_sequential": "frozen",
    }
    assert (
        training["anchored"]["anchor_lambda"],
        training["anchored_lambda1"]["anchor_lambda"],
    ) == (3.0, 1.0)
    assert all(
        training[arm]["concepts"] == list(world.SEEN) for arm in ("anchored", "anchored_lambda1")
    )
    assert {metadata.get("msl.safety_sha256") for metadata in modules.values()} == {
        held.sha256,
        None,
    }
    pictures = {arm: each["dataset_sha256"] for arm, each in training.items()}
    assert (
        len({pictures[arm] for arm in arms.TRAINED})
        == len({pictures[arm] for arm in arms.HOSTILE})
        == 1
    )
    assert pictures["hostile"] != pictures["modular"]


def test_the_cosine_is_that_of_the_dense_changes(stage):
    safety, task = stage.safety("esd-x"), stage.task("sequential", "esd-x")
    bare, safe = arms.weights_of(stage.model), arms.weights_of(merge(stage.model, [safety]).model)
    both = arms.weights_of(merge(stage.model, [safety], [Task(task)]).model)
    names = [name for name in bare if "attn2.to_" in name and name.endswith("weight")]
    ours = torch.cat([(both[name] - safe[name]).flatten() for name in names])
    held = torch.cat([(safe[name] - bare[name]).flatten() for name in names])
    expected = torch.dot(ours, held) / ours.norm() / held.norm()
    assert run.cosine(stage, None, "sequential", "esd-x", 0) == pytest.approx(
        expected.item(), abs=1e-3
    )
    # What was measured leaves the base as it was.
    assert all(
        torch.equal(value, bare[name]) for name, value in arms.weights_of(stage.model).items()
    )
    shipped = load_file(base.SHIPPED)
    assert all(torch.equal(value, shipped[name].float()) for name, value in bare.items())
