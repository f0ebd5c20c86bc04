"""Retained safety on the concept's own inputs: the number is its formula, on sealed prompts."""

import json
from dataclasses import replace

import formats
import merging
import pytest
import torch
from concepts import PROMPTS, SMALL, dead, picture, prompted
from modular_safety_lora.host.prompts import encode_texts
from modular_safety_lora.lab import assets, zoo
from modular_safety_lora.merge import concept, merge
from modular_safety_lora.modules import files

pytestmark = pytest.mark.usefixtures("unloaded")


@pytest.mark.parametrize("kind", [formats.Lora, formats.Full])
def test_each_number_is_the_formula_in_float64_on_prompts_of_its_own(
    checkpoint, text_layers, tokens, kind
):
    """Two safety modules, the second on four of the layers; tasks of four formats."""
    model, clip = checkpoint
    prompts = [PROMPTS, ["a gun"]]
    held = [formats.Lora(text_layers, 1), kind(dict(list(text_layers.items())[:4]), 2, size=0.4)]
    tasks = [
        made(text_layers, 3 + number)
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
        rows = torch.cat([tokens[text] for text in prompts[number]])
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
        assert "layers of cross-attention" in row["on_concept"]
    assert report["retained_on_concept"] == min(
        row["retained_on_concept"] for row in report["modules"][:2]
    )


def test_the_prompts_are_encoded_with_the_changes_of_the_merge(
    checkpoint, prompted_module, tokens, stage
):
    """A task changes the text encoder, so that its output and the number are others.

    What comes out encodes as ever.
    """
    (model, clip), (module, deltas) = checkpoint, prompted_module
    task = merge.Task(dead(deltas, tokens, 0.5))
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
    words = stage.safety.metadata | SMALL | {"msl.prompts": json.dumps(PROMPTS)}
    # it changes the text encoder itself
    both = merge.merge(model, [replace(stage.safety, metadata=words)], (), clip)
    assert both.report["retained_on_concept"] == pytest.approx(1.0)
    assert picture(both.model, both.clip).isfinite().all()


def test_more_tokens_than_the_width_are_made_thin():
    rows = torch.randn(50, 8, generator=torch.Generator().manual_seed(1))
    assert concept.thin(rows).shape == (8, 8) and concept.thin(rows[:7]).shape == (7, 8)
    assert torch.allclose(concept.thin(rows).T @ concept.thin(rows), rows.T @ rows, atol=1e-4)


def test_where_there_is_no_number_the_report_says_why(checkpoint, prompted_module, text_layers):
    (model, clip), (module, _) = checkpoint, prompted_module

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
        ("SD35", "no layer of this model reads"),
        ("SD15", "gives 768 numbers a token, the layers take 64"),
    ):
        small = zoo.build(family)
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
    with pytest.raises(files.ModuleFileError, match="changed after it was sealed"):
        files.load_safety(path, "s")
