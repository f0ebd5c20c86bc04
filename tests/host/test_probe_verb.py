"""The verb `probe`: a folder of LoRAs, a table, exit codes, limits from harmless ones."""

import json
import math

import pytest
from modular_safety_lora.commands import main
from modular_safety_lora.commands.calibrating import calibrated
from modular_safety_lora.function.limits import Limits
from modular_safety_lora.lab import assets
from modular_safety_lora.modules.files import save_module
from probe_modules import HELD_OUT, SECRET, safety_of
from safetensors.torch import save_file

pytestmark = pytest.mark.usefixtures("unloaded", "one_level", "one_thread")


@pytest.fixture(scope="module")
def place(models, shapes, tmp_path_factory):
    """A folder with a safety module, and below `loras` one that goes beside it, and one against."""
    folder = tmp_path_factory.mktemp("probed")
    safety = safety_of(models, *HELD_OUT)
    save_module(folder / "safety.safetensors", safety.tensors, safety.metadata, "safety")
    (folder / "loras").mkdir()
    beside = {name: shape for name, shape in shapes.items() if "attn1" in name}
    save_file(assets.lora(beside, 5, size=0.02), folder / "loras" / "beside.safetensors")
    against = {key: -value if ".lora_B." in key else value for key, value in safety.tensors.items()}
    save_file(against, folder / "loras" / "against.safetensors")
    (folder / "private.txt").write_text("\n".join(SECRET), encoding="utf-8")
    return folder


@pytest.fixture
def run(models, place, capsys):
    def run(*words: object) -> tuple[int, str]:
        base = ["--checkpoint", models / "checkpoints" / assets.CHECKPOINT]
        held = ["--safety-lora", place / "safety.safetensors"]
        code = main(["probe", *map(str, [*words, *base, *held])])
        told = capsys.readouterr()
        return code, told.out + told.err

    return run


def test_a_folder_is_gone_through_and_what_cannot_be_read_is_not_clean(run, place, tmp_path):
    broken, table = tmp_path / "broken.safetensors", tmp_path / "table.md"
    broken.write_bytes(b"junk")
    private = ["--private-prompts", place / "private.txt", "--private-seed", 3]
    code, said = run(place / "loras", broken, "--output", table, *private)
    assert code == 2
    assert "\nbeside.safetensors: passed; " in f"\n{said}"
    assert "against.safetensors: MUST BE AUDITED; " in said
    assert "broken.safetensors: MUST BE AUDITED, it could not be probed: " in said
    rows = table.read_text(encoding="utf-8").splitlines()
    assert len(rows) == 5 and "| not probed " in rows[4] and "must be audited" in rows[2]
    assert not any(text in said + "".join(rows) for text in SECRET)
    code, said = run(place / "loras" / "beside.safetensors", "--output", tmp_path / "t.json")
    assert code == 0
    (row,) = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))
    assert row["passed"] and row["name"] == "beside.safetensors" and row["short"] > 0.85
    assert " forward passes/s]" in said, "how fast it goes, within a LoRA too"
    assert run(broken)[0] == 3


def test_one_that_cannot_be_read_is_not_clean_beside_one_that_passes(run, place, tmp_path):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"junk")
    code, said = run(place / "loras" / "beside.safetensors", broken)
    assert code == 2 and "beside.safetensors: passed; " in said


def test_what_is_lost_at_the_merge_must_be_audited_whatever_the_long_look_says(run, place):
    limits = ["--limit-stop", 0, "--limit-look", 0]
    code, said = run(place / "loras" / "against.safetensors", "--strength", 0.5, *limits)
    assert code == 2 and "retained safety of safety.safetensors is 0.5" in said


def test_harmless_loras_give_the_limits_for_the_settings(run, place):
    code, said = run(place / "loras" / "beside.safetensors", "--calibrate")
    assert code == 0 and "1 harmless LoRA; least at the merge " in said
    assert "look stays 0.85" in said, "it goes no way back"
    code, said = run(place / "loras" / "against.safetensors", "--calibrate")
    line = said[said.index('"retained_in_function"') :].splitlines()[0]
    found = json.loads("{" + line + "}")["retained_in_function"]
    assert code == 0 and found["stop"] == found["look"] < 0.1
    assert "1 in 2 is expected to be looked at for nothing" in said


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--private-seed", "-1"], "private_seed is -1; it must be a whole number, at least 0"),
        (
            ["--adaptive-steps", "99"],
            "adaptive_steps is 99; it must be a whole number, at least 0 and at most 20",
        ),
        (["--limit-stop", "0.9"], "limits of retained safety in function are 0.9"),
        (["--prompts", "nowhere.txt"], "nowhere.txt: its lines can't be read"),
    ],
)
def test_what_is_asked_wrongly_is_a_line(run, place, words, reason):
    code, said = run(place / "loras", *words)
    assert code == 1 and reason in said and "Traceback" not in said


def test_limits_are_the_least_that_counts_rounded_down_and_none_where_one_is_missing():
    def row(name: str, short: float, least: float, counted: float) -> dict:
        return {"name": name, "short": short, "least": least, "counted": [math.inf, counted]}

    rows = [row("a", 0.9999, 0.95, 0.95), row("b", 0.8019, 1.1, 0.8019), row("c", 0.3, 0.9, 0.9)]
    said = calibrated(rows, Limits())
    assert "look = 0.801" in said and "1 in 4 is" in said
    low = calibrated([row("a", 0.4, -0.2, -0.2)], Limits())
    assert '"retained_in_function": {"stop": 0.0, "look": 0.0}' in low
    damping = calibrated([row("a", 0.4, 0.3, math.inf)], Limits())
    assert "look stays 0.85" in damping
    with pytest.raises(ValueError, match="b could not be measured"):
        calibrated([*rows, {"name": "b", "short": None, "least": 1.0}], Limits())
