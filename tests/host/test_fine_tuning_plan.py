"""What an experiment on a user's own model will do and how long that takes, before it is done."""

import dataclasses

import pytest
import torch
from modular_safety_lora.commands import fine_tuning
from modular_safety_lora.experiment import timing
from modular_safety_lora.experiment.job import Experiment
from modular_safety_lora.experiment.run import learner_of
from modular_safety_lora.experiment.timing import Speeds, speeds
from modular_safety_lora.training.engine.checkpoint import NOT_AS_WRITTEN, CheckpointError
from safetensors.torch import save
from tuned import experiment_of, quick

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def asked(safety, tmp_path) -> Experiment:
    """An experiment of two steps and one repetition; nothing is done."""
    with quick():
        yield experiment_of(tmp_path, safety)


def test_it_says_what_it_will_do_and_how_long_that_takes(parts, asked):
    learner = learner_of(parts, asked)
    pace = speeds(learner)
    told = {"detached", "around detached", "picture", "around picture"}
    assert pace.seconds.keys() == {*told, "merge", "pictures encoded"}
    assert min(pace.seconds.values()) > 0
    training, audit, merge, encoding = (
        2 * pace.seconds["detached"] + pace.seconds["around detached"],
        2 * pace.seconds["picture"] + pace.seconds["around picture"],
        pace.seconds["merge"],
        pace.seconds["pictures encoded"],
    )
    left = encoding + 2 * training + 5 * audit + 3 * merge
    assert pace.left(asked) == pytest.approx(left)
    lines = list(fine_tuning._plan(asked, pace))
    assert len(lines) == 8 and "2 steps, about " in lines[1]
    assert lines[-1].startswith("In all about ") and lines[-1].endswith(
        "merging, as measured here."
    )
    assert not (asked.folder / "loras").exists()
    learner.task("detached", 1)
    assert "2 steps, done" in list(fine_tuning._plan(asked, pace))[1]
    assert pace.left(asked) == pytest.approx(left - training)


def test_what_needs_a_safety_lora_that_is_not_there_is_said_to_come_on_top(asked):
    plan = dataclasses.replace(
        asked, given=[], asked=dataclasses.replace(asked.asked, anchored=True)
    )
    pace = Speeds({"safety": 1.0, "detached": 1.0, "picture": 1.0})
    *_, last = fine_tuning._plan(plan, pace)
    assert "On top come merges and anchored trainings, which can't be timed before" in last
    *_, last = fine_tuning._plan(asked, Speeds({**pace.seconds, "merge": 1.0}))
    assert "On top" not in last


def test_one_picture_takes_its_time(parts, asked):
    (prompts,) = asked.sets.values()
    one = {"concept": dataclasses.replace(prompts, prompts=prompts.prompts[:1])}
    learner = learner_of(parts, dataclasses.replace(asked, sets=one))
    small = timing._small(learner.experiment, asked.folder / "small")
    assert timing._measured(learner, small, timing.PICTURE)["picture"] > 0


def test_other_settings_are_timed_again_and_more_of_the_same_is_not(parts, asked, monkeypatch):
    measured = []

    def measure(_, __, what: str) -> dict[str, int]:
        measured.append(what)
        return {what: len(measured)}

    monkeypatch.setattr(timing, "_measured", measure)
    learner = learner_of(parts, asked)
    for change, count in (
        ({}, 3),
        ({"asked": dataclasses.replace(asked.asked, seeds=2)}, 3),
        ({"task": dataclasses.replace(asked.task, steps=9)}, 3),
        ({"task": dataclasses.replace(asked.task, accumulate=2)}, 6),
        ({"pictures": dataclasses.replace(asked.pictures, sizes=[(64, 64)] * 2)}, 9),
        ({"sampling": dataclasses.replace(asked.sampling, steps=2)}, 12),
    ):
        learner.experiment = dataclasses.replace(asked, **change)
        assert speeds(learner).seconds["picture"] == len(measured) == count, change
    (asked.folder / timing.FILE).write_text("[]", encoding="utf-8")
    assert speeds(learner).seconds["picture"] == 15


def test_a_checkpoint_that_can_not_be_read_says_so_before_anything_is_done(asked):
    training = asked.training("frozen", 1)
    training.file.parent.mkdir(parents=True)
    state, pace = training.file.with_suffix(".resume"), Speeds({"detached": 1.0, "picture": 1.0})
    foreign = [
        save({"x": torch.zeros(1)}, said) for said in (None, {"step": "-1"}, {"step": "1.5"})
    ]
    for content in (b"half a file", *foreign):
        state.write_bytes(content)
        why = NOT_AS_WRITTEN if content in foreign else "not a safetensors file"
        told = rf"task-on-top-1.resume: it can't be read \(.*{why}.*Delete it to start over"
        with pytest.raises(CheckpointError, match=told):
            list(fine_tuning._plan(asked, pace))
