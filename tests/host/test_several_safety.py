"""Several safety modules: each is held on its own, and none pays for what is taken from another."""

import itertools

import comfy.sample
import formats
import merging
import pytest
import torch
from modular_safety_lora.merge import merge, on_model
from modular_safety_lora.merge.interference import picture
from modular_safety_lora.modules.errors import SafetyError

pytestmark = pytest.mark.usefixtures("unloaded")


def negated(tensors, part: float = 1.0):
    return {key: -part * value if "lora_up" in key else value for key, value in tensors.items()}


def sum_of(*modules: formats.Lora) -> formats.Lora:
    """A LoRA whose change is the sum of others'."""
    whole = formats.Lora({name: torch.Size((1, 1)) for name in modules[0].parts}, 0)
    for name in whole.parts:
        ups = [module.scale * module.parts[name]["lora_up.weight"] for module in modules]
        whole.parts[name] = {
            "lora_up.weight": torch.cat(ups, 1),
            "lora_down.weight": torch.cat(
                [module.parts[name]["lora_down.weight"] for module in modules]
            ),
        }
    whole.rank = whole.alpha = sum(module.rank for module in modules)
    return whole


def sample(model, clip):
    latent = torch.zeros(1, 4, 4, 4)
    texts = clip.encode_from_tokens_scheduled(clip.tokenize("a picture"))
    noise = comfy.sample.prepare_noise(latent, 1)
    return comfy.sample.sample(
        model, noise, 2, 2.0, "euler", "normal", texts, texts, latent, seed=1, disable_pbar=True
    )


def deltas(model, module, name):
    return module.delta(name, merging.base(model, name))


def test_a_sealed_module_and_its_negation_are_refused_by_name(checkpoint, shapes):
    module = formats.Lora(shapes, 1)
    both = [merging.safety(module.tensors(), name="a.safetensors")]
    both.append(merging.safety(negated(module.tensors(), 0.98), name="b.safetensors"))
    with pytest.raises(
        SafetyError,
        match=r"a.safetensors and b.safetensors weaken each other: 0.020 of a",
    ):
        merge.merge(checkpoint[0], both, foreign="report")
    one_layer = {
        key: value for key, value in negated(module.tensors()).items() if merging.LINEAR[0] in key
    }
    both[1] = merging.safety(one_layer, name="b.safetensors")
    with pytest.raises(SafetyError, match=rf"\(0.000 in diffusion_model.{merging.LINEAR[0]}"):
        merge.merge(checkpoint[0], both)


def test_a_task_against_the_smaller_of_two_is_found(checkpoint, shapes):
    model, clip = checkpoint
    small, large = formats.Lora(shapes, 1, size=0.05), formats.Lora(shapes, 2, size=0.5)
    safety = [
        merging.safety(large.tensors(), name="large"),
        merging.safety(small.tensors(), name="small"),
    ]
    against = merge.Task(merging.task(small.tensors(), "against"), -1.0)
    merged = merge.merge(model, safety, [against])
    report = merged.report
    assert (
        report["retained_safety"] == pytest.approx(0.0, abs=0.05)
        and report["to_blame"][0] == "against"
    )
    assert report["worst_layer"]["safety"] == "small"
    assert [row["retained_safety"] for row in report["modules"][:2]] == pytest.approx(
        [1.0, 0.0], abs=0.05
    )
    assert report["modules"][2]["interference"]["safety"] == "small"
    assert report["modules"][2]["interference"]["of_each"].keys() == {"large", "small"}
    with pytest.raises(SafetyError, match="retained safety of small is -?0.0"):
        sample(merged.model, clip)
    with pytest.raises(SafetyError, match="safety LoRA is left beside against: "):
        merge.merge(model, safety, [against], on_conflict="refuse")
    assert merge.merge(model, safety, on_conflict="refuse").report["retained_safety"] > 0.97


def test_a_module_that_points_along_does_not_pay_for_a_task(checkpoint, shapes):
    """Two modules for related concepts: a task takes one, and the other does not make up for it."""
    held, own = formats.Lora(shapes, 1), formats.Lora(shapes, 2)
    safety = [
        merging.safety(held.tensors(), name="held"),
        merging.safety(sum_of(held, own).tensors(), name="both"),
    ]
    report = merge.merge(checkpoint[0], safety).report
    assert [row["retained_safety"] for row in report["modules"]] == pytest.approx([1.0, 1.0])
    report = merge.merge(
        checkpoint[0], safety, [merge.Task(merging.task(held.tensors()), -1.0)]
    ).report
    assert report["modules"][0]["retained_safety"] == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("kind", ["Lora", "Dora", "Full"])
def test_each_retained_safety_is_the_formula_in_float64(checkpoint, shapes, kind):
    model = checkpoint[0]
    held = [formats.Lora(shapes, 1), getattr(formats, kind)(dict(list(shapes.items())[:2]), 2)]
    task = formats.Lora(shapes, 3, size=0.5)
    safety = [merging.safety(each.tensors(), name=str(number)) for number, each in enumerate(held)]
    report = merge.merge(model, safety, [merge.Task(merging.task(task.tensors()), -0.7)]).report
    for number, module in enumerate(held):
        left, square, by_layer = 0.0, 0.0, {}
        for name in module.parts:
            own = deltas(model, module, name)
            pulls = {"task": -0.7 * (deltas(model, task, name) * own).sum().item(), "other": 0.0}
            if name in held[1 - number].parts:
                pulls["other"] = (deltas(model, held[1 - number], name) * own).sum().item()
            size = own.square().sum().item()
            rho = 1 + (pulls["task"] + min(pulls["other"], 0.0)) / size
            by_layer[f"diffusion_model.{name}.weight"] = rho
            # no layer makes up for another
            left, square = left + min(rho, 1.0) * size, square + size
        row = report["modules"][number]
        assert row["retained_safety"] == pytest.approx(left / square, abs=1e-4)
        worst = min(by_layer, key=by_layer.__getitem__)
        assert row["worst_layer"]["key"] == worst
        assert row["worst_layer"]["retained_safety"] == pytest.approx(by_layer[worst], abs=1e-4)
    assert report["retained_safety"] == min(row["retained_safety"] for row in report["modules"][:2])


def least_change(change, held):
    """The change nearest to `change` that points against none of `held`.

    Every set of them is tried, in float64.
    """
    best = None
    for count in range(len(held) + 1):
        for chosen in itertools.combinations(held, count):
            flat = (
                torch.stack([each.flatten() for each in chosen])
                if chosen
                else torch.zeros(0, change.numel()).double()
            )
            parts = (
                torch.linalg.lstsq(flat @ flat.T, -(flat @ change.flatten())).solution
                if chosen
                else flat.sum(1)
            )
            moved = change + (parts @ flat).reshape(change.shape)
            allowed = all((moved * each).sum() > -1e-9 * each.square().sum() for each in held)
            distance = (moved - change).norm().item()
            if allowed and (best is None or distance < best[0] - 1e-12):
                best = distance, moved
    return best[1]


def test_projecting_takes_out_what_points_against_any_of_them_and_no_more(checkpoint, shapes):
    model = checkpoint[0]
    first, other = formats.Lora(shapes, 1), formats.Lora(shapes, 2)
    second = sum_of(first, other)  # not orthogonal to the first
    tasks = [
        formats.Lora(shapes, 10),
        sum_of(formats.Lora(shapes, 11, size=0.05), first),
        formats.Lora(shapes, 12),
    ]
    strengths = (0.8, -0.9, -1.1)
    modules = [merging.task(each.tensors(), str(number)) for number, each in enumerate(tasks)]
    safety = [
        merging.safety(first.tensors(), name="first"),
        merging.safety(second.tensors(), name="second"),
    ]
    given = [
        merge.Task(module, strength) for module, strength in zip(modules, strengths, strict=True)
    ]
    merged = merge.merge(model, safety, given, on_conflict="project")
    for name in merging.LINEAR:
        w0 = merging.base(model, name).double()
        held = [first.delta(name, w0), second.delta(name, w0)]
        expected = w0 + held[0] + held[1]
        for task, strength in zip(tasks, strengths, strict=True):
            expected += least_change(strength * task.delta(name, w0), held)
        assert merging.relative_error(merging.effective(merged.model, name), expected) < 2e-6, name
    assert (
        merged.report["retained_safety"] == pytest.approx(1.0, abs=1e-5)
        and merged.report["to_blame"] == []
    )
    assert merged.model.get_attachment(on_model.KEY).faults(merged.model) == []


def test_modules_of_one_name_are_told_apart_in_the_picture(checkpoint, shapes):
    """Files of one name in two folders."""
    held, tasks = formats.Lora(shapes, 1), [formats.Lora(shapes, 10), formats.Lora(shapes, 11)]
    given = [merge.Task(merging.task(each.tensors(), "style.safetensors")) for each in tasks]
    merged = merge.merge(checkpoint[0], [merging.safety(held.tensors())], given)
    assert list(merged.interference) == ["style.safetensors (1)", "style.safetensors (2)"]
    assert (
        picture(merged.interference).height
        > picture(dict(list(merged.interference.items())[:1])).height
    )
    safety = [merging.safety(formats.Lora(shapes, seed).tensors()) for seed in (1, 2)]
    several = merge.merge(checkpoint[0], safety, given[:1]).interference
    assert "style.safetensors against safety.safetensors (2)" in several and len(several) == 4
