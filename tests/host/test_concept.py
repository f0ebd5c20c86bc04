"""Retained safety on the concept's own inputs: the attack that it finds, and no false alarm.

The number over weights does not see that attack.
"""

import os
import random

import formats
import merging
import pytest
import torch
from concepts import PROMPTS, dead, picture, prompted
from modular_safety_lora.merge import merge
from modular_safety_lora.merge.in_function import InFunction
from modular_safety_lora.modules.errors import SafetyError

pytestmark = pytest.mark.usefixtures("unloaded")
KINDS = (
    formats.Lora,
    formats.Dora,
    formats.Loha,
    formats.Lokr,
    formats.Oft,
    formats.Boft,
    formats.Glora,
    formats.Full,
)


def test_a_task_that_cancels_the_change_on_the_concepts_tokens_alone_is_stopped(
    checkpoint, prompted_module, tokens
):
    (model, clip), (module, deltas) = checkpoint, prompted_module
    attack = [merge.Task(dead(deltas, tokens))]
    let = merge.merge(model, [module], attack, clip, foreign="report")
    base, safe = picture(model, clip), picture(merge.merge(model, [module], (), clip).model, clip)
    attacked = picture(let.model, let.clip)
    assert (attacked - base).norm() / (safe - base).norm() < 1e-3  # the unsafe base's picture
    assert let.report["retained_safety"] == pytest.approx(1.0, abs=1e-4)
    assert let.report["worst_layer"]["retained_safety"] == pytest.approx(1.0, abs=1e-3)
    with pytest.raises(SafetyError, match="on its concept's prompts is -?0.000"):
        picture(merge.merge(model, [module], attack, clip).model, clip)


def test_half_of_that_is_stopped_too_and_a_twentieth_is_let_pass(
    checkpoint, prompted_module, tokens
):
    """What chance could have taken beside a change of this size is less than half."""
    (model, clip), (module, deltas) = checkpoint, prompted_module
    half = merge.merge(model, [module], [merge.Task(dead(deltas, tokens, 0.5))], clip)
    assert half.report["retained_on_concept"] == pytest.approx(0.5, abs=0.01)
    with pytest.raises(SafetyError, match="on its concept's prompts is 0.500, under 0."):
        picture(half.model, clip)
    little = merge.merge(model, [module], [merge.Task(dead(deltas, tokens, 0.05))], clip)
    assert little.report["losses"] == []


def test_a_change_that_drowns_it_is_no_hiding_place(
    checkpoint, prompted_module, tokens, text_layers
):
    """The dead-directions attack beside a change that is large on these tokens.

    That change is so large that chance alone could take all of it.
    """
    (model, clip), (module, deltas) = checkpoint, prompted_module
    mean = torch.cat([tokens[text] for text in PROMPTS]).mean(0)
    generator = torch.Generator().manual_seed(1)
    loud = {}
    for name, shape in text_layers.items():
        up = torch.randn(shape[0], generator=generator).double()
        change = torch.outer(up, mean)
        own = deltas[name]
        change -= (
            (change @ mean @ (own @ mean))
            / (own @ mean).square().sum()
            * torch.outer(own @ mean, mean)
            / mean.square().sum()
        )
        change *= merging.base(model, name).norm() / change.norm()
        loud[f"diffusion_model.{name}.diff"] = change.float()
    merged = merge.merge(
        model, [module], [merge.Task(dead(deltas, tokens)), merge.Task(merging.task(loud))], clip
    )
    assert any("on its concept's prompts" in loss for loss in merged.report["losses"])


def test_a_merge_can_refuse_it_and_names_the_module(checkpoint, prompted_module, tokens):
    (model, clip), (module, deltas) = checkpoint, prompted_module
    style = formats.Lora({name: delta.shape for name, delta in deltas.items()}, 3, size=0.1)
    tasks = [
        merge.Task(merging.task(style.tensors(), "style.safetensors")),
        merge.Task(dead(deltas, tokens)),
    ]
    with pytest.raises(
        SafetyError, match=r"left beside dead.safetensors: .*on its concept's prompts is -?0.0"
    ):
        merge.merge(model, [module], tasks, clip, on_conflict="refuse")
    report = merge.merge(model, [module], tasks, clip).report
    assert report["to_blame"] == ["dead.safetensors"]
    assert report["modules"][2]["interference"]["retained_on_concept"] == pytest.approx(
        0.0, abs=1e-3
    )


def test_projecting_gives_the_change_back_on_the_concept_too(checkpoint, prompted_module, tokens):
    """dW + c dW_s with the least c that pulls against it neither over weights nor on prompts."""
    (model, clip), (module, deltas) = checkpoint, prompted_module
    merged = merge.merge(
        model, [module], [merge.Task(dead(deltas, tokens))], clip, on_conflict="project"
    )
    assert (
        merged.report["retained_on_concept"] == pytest.approx(1.0, abs=1e-4)
        and merged.report["losses"] == []
    )
    rows = torch.cat([tokens[text] for text in PROMPTS])
    change = dead(deltas, tokens).tensors
    for name, delta in deltas.items():
        own, pulled = delta @ rows.T, change[f"diffusion_model.{name}.diff"].double() @ rows.T
        part = -((own * pulled).sum() / own.square().sum()).item()
        expected = (
            merging.base(model, name) + change[f"diffusion_model.{name}.diff"] + (1 + part) * delta
        )
        assert merging.relative_error(merging.effective(merged.model, name), expected) < 1e-5
    base = picture(model, clip)
    safe = picture(merge.merge(model, [module], (), clip).model, clip)
    # the safe picture again
    assert (picture(merged.model, merged.clip) - safe).norm() < 0.05 * (safe - base).norm()


def test_projecting_beside_two_modules_leaves_none_of_them_under(checkpoint, text_layers, tokens):
    model, clip = checkpoint
    held = [formats.Lora(text_layers, seed) for seed in (1, 2)]
    named = [("nude", held[0]), ("a gun", held[1])]
    safety = [prompted(each.tensors(), [word], word) for word, each in named]
    deltas = [
        {name: each.delta(name, merging.base(model, name)) for name in text_layers} for each in held
    ]
    tasks = [merge.Task(dead(each, tokens)) for each in deltas]
    alone = merge.merge(model, safety, (), clip).report["modules"]
    rows = merge.merge(model, safety, tasks, clip, on_conflict="project").report["modules"][:2]
    for before, row in zip(alone, rows, strict=True):
        for number in ("retained_on_concept", "retained_safety"):
            assert row[number] > before[number] - 1e-4


def strong(shape_of, seed: int, chance: random.Random, model, size: float) -> merge.Task:
    """A task of a random format and rank whose change has this size relative to the weights."""
    made = chance.choice(KINDS)
    kind = type("Ranked", (made,), {"rank": chance.choice((1, 4, 16))}) if made.rank else made
    module = kind(shape_of, seed, size=chance.choice((0.1, 0.3)))
    name = next(iter(shape_of))  # in the others it is of about the same size
    w0 = merging.base(model, name)
    strength = size * (w0.norm() / module.delta(name, w0).norm()).item()
    return merge.Task(
        merging.task(module.tensors(), f"{seed}.safetensors"), strength * chance.choice((-1.0, 1.0))
    )


@pytest.mark.parametrize("merges", [50, pytest.param(200, marks=pytest.mark.long)])
def test_no_harmless_merge_alarms_and_the_attack_beside_it_does(
    checkpoint, prompted_module, text_layers, tokens, monkeypatch, merges
):
    """Merges of one to three tasks of all formats and ranks.

    Their relative size is up to 1.5, and over 0.3 for half of them.

    MSL_SHOW=1 prints the distribution that docs/threat-model.md has, of 200.
    """
    (model, clip), (module, deltas) = checkpoint, prompted_module
    monkeypatch.setattr(
        merge, "in_function", lambda *_: InFunction()
    )  # what is looked at elsewhere
    chance, plain, worst, alarms, missed = random.Random(5), [], [], [], []
    attack = merge.Task(dead(deltas, tokens))
    for number in range(merges):
        shape_of = dict(
            chance.sample(sorted(text_layers.items()), chance.randint(4, len(text_layers)))
        )
        size = chance.uniform(0.05, 0.3) if number % 2 else chance.uniform(0.3, 1.5)
        count = chance.randint(1, 3)
        tasks = [
            strong(shape_of, 10 * number + each, chance, model, size / count**0.5)
            for each in range(count)
        ]
        report = merge.merge(model, [module], tasks, clip).report
        plain.append(report["retained_on_concept"])
        worst.append(report["modules"][0]["worst_on_concept"]["retained_safety"])
        alarms += [loss for loss in report["losses"] if "prompts" in loss]
        if (
            number % 10 == 0
            and not merge.merge(model, [module], [*tasks, attack], clip).report["losses"]
        ):
            missed.append((number, size))
    if os.environ.get("MSL_SHOW"):
        for name, values in (("overall", sorted(plain)), ("least layer", sorted(worst))):
            print(
                f"{name}: least {values[0]:.3f}, 1st percentile {values[merges // 100]:.3f},"
                f" median {values[merges // 2]:.3f}"
            )
    assert (alarms, missed) == ([], [])
