"""Task modules that pull against the safety module: who is to blame, refusing, and projecting.

All is compared with float64 formulas.
"""

import json

import formats
import merging
import pytest
import torch
from cli import run
from modular_safety_lora.lab import assets
from modular_safety_lora.merge import merge, on_model
from modular_safety_lora.merge.conflicts import CONFLICTS
from modular_safety_lora.merge.interference import HELD, UNDONE, picture
from modular_safety_lora.modules.errors import SafetyError
from PIL import Image, ImageColor
from safetensors.torch import load_file, save_file

KINDS = ("Lora", "Dora", "Loha", "Full")


@pytest.fixture(scope="module")
def safety(shapes):
    return formats.Lora(shapes, 1, size=0.3)


class Against(formats.Lora):
    """A LoRA that holds a part of the safety change, negated, beside a change of its own."""

    def __init__(self, shapes, seed: int, safety: formats.Lora, part: float):
        super().__init__(shapes, seed, size=0.1)
        for name, held in safety.parts.items():
            own = self.parts[name]
            own["lora_up.weight"] = torch.cat(
                [own["lora_up.weight"], -part * held["lora_up.weight"]], 1
            )
            own["lora_down.weight"] = torch.cat(
                [own["lora_down.weight"], held["lora_down.weight"]], 0
            )
        self.alpha = 2.0 * safety.alpha  # of twice the rank: the same scale
        self.rank = 2 * safety.rank


def tasks_of(shapes, safety) -> list:
    """Three harmless modules, and one that takes four fifths of the safety change back."""
    modules = [
        getattr(formats, kind)(shapes, 10 + number, size=0.2)
        for number, kind in enumerate(KINDS[:3])
    ]
    modules.append(Against(shapes, 20, safety, 0.8))
    return modules


def merged(checkpoint, safety, modules, strengths, **options):
    tasks = [
        merge.Task(merging.task(module.tensors(), f"{number}.safetensors"), strength)
        for number, (module, strength) in enumerate(zip(modules, strengths, strict=True))
    ]
    return merge.merge(checkpoint[0], [merging.safety(safety.tensors())], tasks, **options)


def test_projecting_is_the_formula_and_nothing_else_changes(checkpoint, shapes, safety):
    modules, strengths = tasks_of(shapes, safety), (0.7, -0.9, 1.2, 1.0)
    projected = merged(checkpoint, safety, modules, strengths, on_conflict="project")
    dots = squares = 0.0
    for name in merging.LINEAR:
        w0 = merging.base(checkpoint[0], name).double()
        held = safety.delta(name, w0)
        expected = w0 + held
        for module, strength in zip(modules, strengths, strict=True):
            change = strength * module.delta(name, w0)
            expected += (
                change + max(0.0, -((change * held).sum() / (held * held).sum()).item()) * held
            )
        now = merging.effective(projected.model, name)
        assert merging.relative_error(now, expected) < 1e-6, name
        dots += min(((expected - w0) * held).sum().item(), (held * held).sum().item())
        squares += (held * held).sum().item()
    assert projected.report["retained_safety"] == pytest.approx(
        dots / squares, abs=1e-5
    ) and dots == pytest.approx(squares)
    assert projected.report["to_blame"] == [] and projected.report["low_layers"] == {}
    lock = projected.model.get_attachment(on_model.KEY)
    assert lock.faults(projected.model) == []


def test_what_does_not_pull_against_it_is_left_alone(checkpoint, shapes, safety):
    along = Against(shapes, 20, safety, -0.5)
    plain, projected = (
        merged(checkpoint, safety, [along], [1.0], on_conflict=way) for way in ("report", "project")
    )
    for name in merging.LINEAR:
        assert torch.equal(
            merging.effective(plain.model, name), merging.effective(projected.model, name)
        )


def test_the_report_names_who_is_to_blame_with_its_cosine(checkpoint, shapes, safety):
    modules = tasks_of(shapes, safety)
    report = merged(checkpoint, safety, modules, (1.0, 1.0, 1.0, 1.0)).report
    assert report["to_blame"][0] == "3.safetensors" and report["retained_safety"] < 0.9
    dots = sizes = squares = 0.0
    for name in merging.LINEAR:
        w0 = merging.base(checkpoint[0], name).double()
        held, change = safety.delta(name, w0), modules[3].delta(name, w0)
        dots, sizes, squares = (
            dots + (change * held).sum(),
            sizes + change.square().sum(),
            squares + held.square().sum(),
        )
    found = report["modules"][4]["interference"]
    assert found["cosine"] == pytest.approx((dots / (sizes * squares).sqrt()).item(), abs=1e-4)
    assert found["retained_safety"] == pytest.approx((1.0 + dots / squares).item(), abs=1e-4)
    assert min(found["worst_layers"].values()) < 0.4
    assert all(abs(module["interference"]["cosine"]) < 0.1 for module in report["modules"][1:4])
    harmless = merged(checkpoint, safety, modules[:3], (1.0, 1.0, 1.0)).report
    assert harmless["to_blame"] == [] and "interference" not in harmless["modules"][0]


def test_refuse_stops_the_merge_and_names_them(checkpoint, shapes, safety):
    modules = tasks_of(shapes, safety)
    with pytest.raises(
        SafetyError, match=r"safety LoRA is left beside 3.safetensors: retained safety of "
    ):
        merged(checkpoint, safety, modules, (1.0, 1.0, 1.0, 1.0), on_conflict="refuse")
    assert (
        merged(checkpoint, safety, modules[:3], (1.0, 1.0, 1.0), on_conflict="refuse").report[
            "on_conflict"
        ]
        == "refuse"
    )
    with pytest.raises(ValueError, match=f"must be one of {', '.join(CONFLICTS)}"):
        merged(checkpoint, safety, modules[:1], (1.0,), on_conflict="ignore")


def test_modules_on_other_layers_do_not_interfere(checkpoint, safety):
    elsewhere = formats.Lora(merging.shapes(checkpoint[0], *merging.CONVOLUTION), 3)
    assert (
        merged(checkpoint, safety, [elsewhere], [1.0]).report["modules"][1]["interference"] is None
    )


def test_the_picture_shows_every_module_and_says_when_there_is_nothing(checkpoint, shapes, safety):
    result = merged(checkpoint, safety, tasks_of(shapes, safety), (1.0, 1.0, 1.0, 1.0))
    assert list(result.interference) == [f"{number}.safetensors" for number in range(4)]
    worst = result.report["modules"][4]["interference"]["worst_layers"]
    assert {key: result.interference["3.safetensors"][key] for key in worst} == pytest.approx(
        worst, abs=1e-5
    )
    drawn = picture(result.interference)
    colours = {colour for _, colour in drawn.getcolors(1 << 24)}
    assert (
        drawn.width == 1200
        and ImageColor.getrgb(UNDONE) in colours
        and ImageColor.getrgb(HELD) in colours
    )
    assert picture({}).size == (900, 60)


def test_the_command_line_looks_at_a_folder_of_loras(models, tmp_path):
    loras, against = models / "loras", tmp_path / "against.safetensors"
    tensors = load_file(loras / assets.SAFETY)
    save_file(
        {key: -value if "lora_B" in key else value for key, value in tensors.items()}, against
    )
    save_file(
        {"diffusion_model.nowhere.lora_A.weight": torch.ones(2, 2)}, tmp_path / "other.safetensors"
    )
    base = [
        "--checkpoint",
        models / "checkpoints" / assets.CHECKPOINT,
        "--safety-lora",
        loras / assets.SAFETY,
    ]

    done = run("interference", loras, tmp_path, *base, "--output", tmp_path / "chart.png")
    assert done.returncode == 1, done.stderr
    lines = dict(line.split(": ", 1) for line in done.stdout.strip().splitlines())
    assert lines["against.safetensors"].startswith(
        "UNDOES the safety LoRA; retained safety 0.000, cosine -1.000"
    )
    assert lines[assets.STYLE].startswith("works beside it") and assets.SAFETY not in lines
    assert lines["against.safetensors"].endswith("0.000 of it left in what the network computes")
    assert "(1 of 1 task tensor does not fit" in lines["other.safetensors"]
    assert Image.open(tmp_path / "chart.png").width == 1200
    done = run("interference", loras, *base, "--json")
    assert done.returncode == 0
    assert {json.loads(line)["name"] for line in done.stdout.splitlines()} == {
        assets.STYLE,
        assets.SUBJECT,
    }
    assert run("interference", tmp_path / "other.safetensors", *base).returncode == 1
    (tmp_path / "empty").mkdir()
    done = run("interference", tmp_path / "empty", *base)
    assert done.returncode == 1 and "There is no .safetensors file in" in done.stderr
