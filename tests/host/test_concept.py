"""Retained safety on the concept's own inputs: its formula, and the attack that it finds.

The number over weights does not see that attack.
"""

import json
import os
import random
from dataclasses import replace

import comfy.model_management
import comfy.sample
import formats
import merging
import pytest
import torch
from modular_safety_lora.host.prompts import encode_texts
from modular_safety_lora.lab import assets
from modular_safety_lora.merge import concept, merge
from modular_safety_lora.merge import lock as guard
from modular_safety_lora.modules import files
from modular_safety_lora.modules.files import Module
from safetensors.torch import load_file
from small_models import small_model

PROMPTS = ["nude", "naked person"]
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


@pytest.fixture(autouse=True)
def unloaded():
    yield
    comfy.model_management.unload_all_models()


@pytest.fixture(scope="module")
def texts(checkpoint):
    """What the host's encoder gives, each text by a call of its own: (tokens, width) in float64."""
    made = encode_texts(checkpoint[1], [*PROMPTS, "a gun"])
    return {text: conds[0][0][0].double() for text, conds in made.items()}


@pytest.fixture(scope="module")
def layers(checkpoint):
    """The keys and values of the small checkpoint's cross-attention."""
    names = (
        key.removeprefix("diffusion_model.").removesuffix(".weight")
        for key in checkpoint[0].model.state_dict()
    )
    return merging.shapes(
        checkpoint[0], *(name for name in names if name.endswith(("attn2.to_k", "attn2.to_v")))
    )


@pytest.fixture(scope="module")
def held(models, layers):
    """The text-reading layers of the demo's safety module, with prompts; its changes in float64."""
    tensors = load_file(models / "loras" / assets.SAFETY)
    kept = {
        key: value for key, value in tensors.items() if any(f".{name}." in key for name in layers)
    }
    deltas = {
        name: (
            kept[f"diffusion_model.{name}.lora_B.weight"].double()
            @ kept[f"diffusion_model.{name}.lora_A.weight"].double()
        )
        for name in layers
    }
    return prompted(kept, PROMPTS), deltas


def prompted(tensors, prompts, name: str = "safety.safetensors") -> Module:
    about = {
        "msl.role": "safety",
        "msl.strength": "1.0",
        "msl.base": "SD15",
        "msl.prompts": json.dumps(prompts),
    }
    return Module(name, "safety", f"{name}-{id(tensors)}", about, tensors)


def dead(deltas, texts, part: float = 1.0) -> Module:
    """A task that takes part of the safety change on these tokens' span, and repays it off them."""
    _, sizes, directions = torch.linalg.svd(
        torch.cat([texts[text] for text in (*PROMPTS, "")]), full_matrices=False
    )
    span = directions[sizes / sizes[0] > 1e-6]
    tensors = {}
    for name, delta in deltas.items():
        on = delta @ span.T @ span
        off = delta - on
        change = part * (on.square().sum() / off.square().sum() * off - on)
        tensors[f"diffusion_model.{name}.diff"] = change.float()
    return merging.task(tensors, "dead.safetensors")


def picture(model, clip, text: str = "nude"):
    latent = torch.zeros(1, 4, 8, 8)
    positive, negative = (
        clip.encode_from_tokens_scheduled(clip.tokenize(each)) for each in (text, "")
    )
    noise = comfy.sample.prepare_noise(latent, 1)
    return comfy.sample.sample(
        model,
        noise,
        2,
        2.0,
        "euler",
        "normal",
        positive,
        negative,
        latent,
        seed=1,
        disable_pbar=True,
    )


def test_a_task_that_cancels_the_change_on_the_concepts_tokens_alone_is_stopped(
    checkpoint, held, texts
):
    (model, clip), (module, deltas) = checkpoint, held
    attack = [merge.Task(dead(deltas, texts))]
    let = merge.merge(model, [module], attack, clip, foreign="report")
    base, safe = picture(model, clip), picture(merge.merge(model, [module], (), clip).model, clip)
    attacked = picture(let.model, let.clip)
    assert (attacked - base).norm() / (safe - base).norm() < 1e-3  # the unsafe base's picture
    assert let.report["retained_safety"] == pytest.approx(1.0, abs=1e-4)
    assert let.report["worst_layer"]["retained_safety"] == pytest.approx(1.0, abs=1e-3)
    with pytest.raises(guard.SafetyError, match="on its concept's prompts is -?0.000"):
        picture(merge.merge(model, [module], attack, clip).model, clip)


def test_half_of_that_is_stopped_too_and_a_twentieth_is_let_pass(checkpoint, held, texts):
    """What chance could have taken beside a change of this size is less than half."""
    (model, clip), (module, deltas) = checkpoint, held
    half = merge.merge(model, [module], [merge.Task(dead(deltas, texts, 0.5))], clip)
    assert half.report["retained_on_concept"] == pytest.approx(0.5, abs=0.01)
    with pytest.raises(guard.SafetyError, match="on its concept's prompts is 0.500, under 0."):
        picture(half.model, clip)
    little = merge.merge(model, [module], [merge.Task(dead(deltas, texts, 0.05))], clip)
    assert little.report["losses"] == []


@pytest.mark.parametrize("kind", [formats.Lora, formats.Full])
def test_each_number_is_the_formula_in_float64_on_prompts_of_its_own(
    checkpoint, layers, texts, kind
):
    """Two safety modules, the second on four of the layers; tasks of four formats."""
    model, clip = checkpoint
    prompts = [PROMPTS, ["a gun"]]
    held = [formats.Lora(layers, 1), kind(dict(list(layers.items())[:4]), 2, size=0.4)]
    tasks = [
        made(layers, 3 + number)
        for number, made in enumerate((formats.Lora, formats.Dora, formats.Loha, formats.Full))
    ]
    strengths = (-0.6, 0.4, 0.8, -0.5)
    safety = [
        prompted(each.tensors(), words, str(number))
        for number, (each, words) in enumerate(zip(held, prompts, strict=True))
    ]
    given = [
        merge.Task(merging.task(each.tensors()), strength)
        for each, strength in zip(tasks, strengths, strict=True)
    ]
    report = merge.merge(model, safety, given, clip).report
    for number, module in enumerate(held):
        rows = torch.cat([texts[text] for text in prompts[number]])
        left = square = 0.0
        by_layer = {}
        for name in module.parts:
            w0 = merging.base(model, name)
            own = module.delta(name, w0) @ rows.T
            change = sum(s * task.delta(name, w0) for s, task in zip(strengths, tasks, strict=True))
            pull = (change @ rows.T * own).sum()
            if name in held[1 - number].parts:
                pull += min((held[1 - number].delta(name, w0) @ rows.T * own).sum(), 0.0)
            size = own.square().sum()
            by_layer[f"diffusion_model.{name}.weight"] = (1 + pull / size).item()
            left, square = left + min(1 + pull / size, 1.0) * size, square + size
        row = report["modules"][number]
        assert row["retained_on_concept"] == pytest.approx((left / square).item(), abs=1e-4)
        worst = min(by_layer, key=by_layer.__getitem__)
        assert row["worst_on_concept"]["key"] == worst
        assert row["worst_on_concept"]["retained_safety"] == pytest.approx(
            by_layer[worst], abs=1e-4
        )
        assert "keys and values of cross-attention" in row["on_concept"]
    assert report["retained_on_concept"] == min(
        row["retained_on_concept"] for row in report["modules"][:2]
    )


def test_texts_encoded_together_are_what_the_host_gives_one_by_one(checkpoint):
    clip = checkpoint[1]
    # the second is two sections long, with weights
    prompts = ["nude", "a (nude:1.3) person, " * 20, "naked person"]
    together = concept.encode(clip, prompts)
    for text, conds in encode_texts(clip, prompts).items():
        if text:
            assert merging.relative_error(together[text], conds[0][0][0]) < 1e-5
    assert [len(together[text]) for text in prompts] == [77, 77 * 2, 77]


def test_the_prompts_are_encoded_with_the_changes_of_the_merge(checkpoint, held, texts, stage):
    """A task changes the text encoder, so that its output and the number are others.

    What comes out encodes as ever.
    """
    (model, clip), (module, deltas) = checkpoint, held
    task = merge.Task(dead(deltas, texts, 0.5))
    plain = merge.merge(model, [module], [task], clip).report["retained_on_concept"]
    moving = merge.Task(merging.task(assets.text_lora(7)), 0.0, 2.0)
    moved = merge.merge(model, [module], [task, moving], clip)
    made = encode_texts(moved.clip, PROMPTS)
    rows = torch.cat([made[text][0][0][0].double() for text in PROMPTS])
    left = square = 0.0
    for name, delta in deltas.items():
        own, pulled = (
            each.double() @ rows.T
            for each in (delta, task.module.tensors[f"diffusion_model.{name}.diff"])
        )
        square += own.square().sum().item()
        left += min(own.square().sum().item(), ((own + pulled) * own).sum().item())
    assert moved.report["retained_on_concept"] == pytest.approx(left / square, abs=1e-4)
    assert abs(left / square - plain) > 0.01
    words = stage.safety.metadata | {"msl.prompts": json.dumps(PROMPTS)}
    # it changes the text encoder itself
    both = merge.merge(model, [replace(stage.safety, metadata=words)], (), clip)
    assert both.report["retained_on_concept"] == pytest.approx(1.0)
    assert picture(both.model, both.clip).isfinite().all()


def test_a_merge_can_refuse_it_and_names_the_module(checkpoint, held, texts):
    (model, clip), (module, deltas) = checkpoint, held
    style = formats.Lora({name: delta.shape for name, delta in deltas.items()}, 3, size=0.1)
    tasks = [
        merge.Task(merging.task(style.tensors(), "style.safetensors")),
        merge.Task(dead(deltas, texts)),
    ]
    with pytest.raises(
        guard.SafetyError, match=r"\(first: dead.safetensors\).*on its concept's prompts is -?0.0"
    ):
        merge.merge(model, [module], tasks, clip, on_conflict="refuse")
    report = merge.merge(model, [module], tasks, clip).report
    assert report["to_blame"] == ["dead.safetensors"]
    assert report["modules"][2]["interference"]["retained_on_concept"] == pytest.approx(
        0.0, abs=1e-3
    )


def test_projecting_gives_the_change_back_on_the_concept_too(checkpoint, held, texts):
    """dW + c dW_s with the least c that pulls against it neither over weights nor on prompts."""
    (model, clip), (module, deltas) = checkpoint, held
    merged = merge.merge(
        model, [module], [merge.Task(dead(deltas, texts))], clip, on_conflict="project"
    )
    assert (
        merged.report["retained_on_concept"] == pytest.approx(1.0, abs=1e-4)
        and merged.report["losses"] == []
    )
    rows = torch.cat([texts[text] for text in PROMPTS])
    change = dead(deltas, texts).tensors
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


def test_projecting_beside_two_modules_leaves_none_of_them_under(checkpoint, layers, texts):
    model, clip = checkpoint
    held = [formats.Lora(layers, seed) for seed in (1, 2)]
    named = [("nude", held[0]), ("a gun", held[1])]
    safety = [prompted(each.tensors(), [word], word) for word, each in named]
    deltas = [
        {name: each.delta(name, merging.base(model, name)) for name in layers} for each in held
    ]
    tasks = [merge.Task(dead(each, texts)) for each in deltas]
    alone = merge.merge(model, safety, (), clip).report["modules"]
    rows = merge.merge(model, safety, tasks, clip, on_conflict="project").report["modules"][:2]
    for before, row in zip(alone, rows, strict=True):
        for number in ("retained_on_concept", "retained_safety"):
            assert row[number] > before[number] - 1e-4


def test_more_tokens_than_the_width_are_made_thin():
    rows = torch.randn(50, 8, generator=torch.Generator().manual_seed(1))
    assert concept.thin(rows).shape == (8, 8) and concept.thin(rows[:7]).shape == (7, 8)
    assert torch.allclose(concept.thin(rows).T @ concept.thin(rows), rows.T @ rows, atol=1e-4)


def test_where_there_is_no_number_the_report_says_why(checkpoint, held, layers):
    (model, clip), (module, _) = checkpoint, held

    def words(made, *safety, clip=clip):
        report = merge.merge(made, list(safety), (), clip).report
        assert (
            report["retained_on_concept"] is None
            and report["modules"][0]["retained_on_concept"] is None
        )
        assert (
            report["modules"][0]["worst_on_concept"] is None
            and report["modules"][0]["on_concept"] in report["on_concept"]
        )
        return report["on_concept"]

    assert "no clip is connected" in words(model, module, clip=None)
    assert "names no prompts" in words(model, merging.safety(module.tensors))
    elsewhere = formats.Lora(merging.shapes(model, merging.LINEAR[0]), 1)
    assert "no keys or values" in words(model, prompted(elsewhere.tensors(), PROMPTS))
    for family, reason in (
        ("SD3", "no layer of this model reads"),
        ("SD15", "gives 768 numbers a token, the layers take 64"),
    ):
        small = small_model(family)
        name = next(
            key
            for key, value in small.model.state_dict().items()
            if "attn" in key and value.ndim == 2
        )
        names = [key for key in small.model.state_dict() if key.endswith("attn2.to_k.weight")] or [
            name
        ]
        shapes = merging.shapes(
            small, names[0].removeprefix("diffusion_model.").removesuffix(".weight")
        )
        assert reason in words(small, prompted(formats.Lora(shapes, 1).tensors(), PROMPTS))


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


def test_no_harmless_merge_alarms_and_the_attack_beside_it_does(
    checkpoint, held, layers, texts, monkeypatch
):
    """200 merges of one to three tasks of all formats and ranks.

    Their relative size is up to 1.5, and over 0.3 for half of them.

    MSL_SHOW=1 prints the distribution that docs/threat-model.md has.
    """
    (model, clip), (module, deltas) = checkpoint, held
    seen = concept.encode(clip, PROMPTS)
    monkeypatch.setattr(concept, "encode", lambda *_: seen)  # the same text, encoded once
    chance, plain, worst, alarms, missed = random.Random(5), [], [], [], []
    attack = merge.Task(dead(deltas, texts))
    for number in range(200):
        shape_of = dict(chance.sample(sorted(layers.items()), chance.randint(4, len(layers))))
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
                f"{name}: least {values[0]:.3f}, 1st percentile {values[2]:.3f},"
                f" median {values[100]:.3f}"
            )
    assert (alarms, missed) == ([], [])


def test_a_change_that_drowns_it_is_no_hiding_place(checkpoint, held, texts, layers):
    """The dead-directions attack beside a change that is large on these tokens.

    That change is so large that chance alone could take all of it.
    """
    (model, clip), (module, deltas) = checkpoint, held
    mean = torch.cat([texts[text] for text in PROMPTS]).mean(0)
    generator = torch.Generator().manual_seed(1)
    loud = {}
    for name, shape in layers.items():
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
        model, [module], [merge.Task(dead(deltas, texts)), merge.Task(merging.task(loud))], clip
    )
    assert any("on its concept's prompts" in loss for loss in merged.report["losses"])


def test_the_prompts_are_sealed_and_those_that_are_none_are_refused(tmp_path):
    tensors, path = (
        {"a.lora_A.weight": torch.ones(1, 2), "a.lora_B.weight": torch.ones(2, 1)},
        tmp_path / "s.safetensors",
    )

    def sealed(**about):
        files.save_module(path, tensors, about, "safety", overwrite=True)
        return files.load_safety(path, "s")

    assert sealed(**{"msl.prompts": '["nude", " a, b ", ""]', "msl.concept": "x"}).prompts == [
        "nude",
        "a, b",
    ]
    assert (
        sealed(**{"msl.concept": "nude, naked , nude"}).prompts == ["nude", "naked"]
        and sealed().prompts == []
    )
    for wrong in ("nude", '{"a": 1}', "[1]"):
        with pytest.raises(
            files.ModuleFileError, match="msl.prompts is .* must be a JSON list of texts"
        ):
            sealed(**{"msl.prompts": wrong})
    sealed(**{"msl.prompts": '["nude"]'})
    data = path.read_bytes()
    path.write_bytes(data.replace(b"nude", b"rude"))
    with pytest.raises(files.ModuleFileError, match="seal of this safety module is not intact"):
        files.load_safety(path, "s")
