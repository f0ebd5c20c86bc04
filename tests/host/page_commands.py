"""The commands that a page shows, as a shell expands them, and small stand-ins for its files."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import command_driver
import small_models
from markdown_it import MarkdownIt
from merging import picture_folder
from modular_safety_lora.demands.file import FILE
from modular_safety_lora.evidence.files import FOLDER
from modular_safety_lora.evidence.log import Log
from modular_safety_lora.function.inputs import Moments
from modular_safety_lora.lab import assets
from modular_safety_lora.lab.server import PACK
from modular_safety_lora.modules.sealing import Sealing, seal_file
from safetensors.torch import load_file, save_file
from stranger import BY_PATH, Stranger

PAGES = [PACK / "README.md", *sorted(PACK.glob("docs/*.md")), *sorted(PACK.glob("web/docs/*.md"))]
# a line that somebody is to type; `mode` in `for mode in ...` is the shell's
TYPED = re.compile(r"(python3?|pip|accelerate|cm-cli|comfy|\.venv/bin/\S+|[a-z]+=\")[ =\"]")
# what no test types again, and what shows instead that it works
ELSEWHERE = {
    r"python dev\.py \w+|\.venv/bin/python -m modular_safety_lora\.lab\.\S+": "of the repository",
    r"python main\.py": "tests/live/test_hosting.py",
    r"python install\.py": "tests/host/test_install.py",
    r"cm-cli install ADDRESS": "tests/live/test_manager.py",
    r"pip install ('ray\[data\]'|pyarrow|cryptography|bitsandbytes)": "fetches a package",
    r"comfy node validate": "fetches a package",
}
LAUNCHER = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
SMALL_TRAINING = "--steps 2 --resolution 32 --rank 2 --learning-rate 1e-2 --save-every 0"
# hours made seconds: what is added to a verb's command (of an option given twice the last counts)
SMALLER = {
    "train-task": SMALL_TRAINING + " --targets cross-attention --learning-rate 1e-3",
    "train-safety": SMALL_TRAINING + " --sampling-steps 2",
    "audit-prompts": "--steps 1 --width 64 --height 64",
    "search-prompts": "--steps 1 --width 64 --height 64 --limit 1 --levels 1 --iterations 1",
    "audit": "--workers 1",
    "fine-tuning": "--steps 2 --resolution 32 --rank 2 --learning-rate 1e-3 --seeds 1"
    " --targets cross-attention --pictures-steps 1 --pictures-per-prompt 1 --prompts-per-kind 1"
    " --width 64 --height 64",
    "report": "--steps 1 --width 64 --height 64 --pictures-per-prompt 1 --prompts-per-kind 1",
    "probe": "--limit-look 0 --limit-stop 0",  # seeded stand-ins may pull either way
    # of the folder's own; the host's user folder stays as it is
    "settings": f"user/{FILE}",
    "log": f"--folder user/{FOLDER}",
}
# verbs that take half a minute; test_example_model.py, test_extract_node.py, test_report_safety.py
# and test_fine_tuning.py try them small
SLOW = ("demo", "extract", "report", "fine-tuning")
# those that ask for models of which there is no small one: test_measure_quality.py runs it
OF_OTHERS = ("quality",)
# the stand-ins that a page's own commands make
MADE_THERE = {"training": ["safety.safetensors"]}
# the small model in three files is no Z-Image
AS_SD = " --text-encoder-type stable_diffusion"


def code_of(page: Path) -> list[str]:
    """Every indented or fenced block of a page, and every stretch of code in a line."""
    found = []
    for token in MarkdownIt().enable("table").parse(page.read_text(encoding="utf-8")):
        if token.type in ("code_block", "fence"):
            found.append(token.content)
        found += [each.content for each in token.children or () if each.type == "code_inline"]
    return found


def typed(page: Path) -> list[str]:
    """What of a page's code is commands, without those that ELSEWHERE names."""
    blocks = [
        each for each in code_of(page) if any(map(TYPED.match, map(str.strip, each.split("\n"))))
    ]
    return [
        each
        for each in blocks
        if not any(re.fullmatch(rf"({known})( .*)?", each.strip()) for known in ELSEWHERE)
    ]


def is_slow(page: Path) -> bool:
    """Are its commands slow ones alone?"""
    return all(
        re.search(rf"{BY_PATH} ({'|'.join((*SLOW, *OF_OTHERS))})\b", each) for each in typed(page)
    )


def expanded(page: Path, folder: Path) -> list[list[str]]:
    """The arguments of every `python` that the page's commands start, in order."""
    told = folder / "told"
    record = f"python() {{ printf '%s\\0' \"$@\" >> '{told}'; printf '\\n\\0' >> '{told}'; }}"
    script = "\n".join(["set -eu", record, "C=BASE.safetensors", *typed(page)])
    # without a path the shell finds no other command, and fails
    shell = [shutil.which("bash"), "-c", script]
    subprocess.run(shell, cwd=folder, env={"PATH": ""}, check=True, capture_output=True)
    ends = told.read_text(encoding="utf-8").split("\n\0")[:-1] if told.exists() else []
    return [smaller(each.split("\0")[:-1]) for each in ends]


def smaller(arguments: list[str]) -> list[str]:
    if arguments[: len(LAUNCHER)] == LAUNCHER:  # test_by_path.py starts it
        arguments = arguments[len(LAUNCHER) :]
        return [*arguments, *SMALLER["train-task"].split()]
    assert arguments[0] == BY_PATH, arguments
    if "--help" in arguments:
        return arguments
    apart = AS_SD if "--diffusion-model" in arguments else ""
    return [*arguments, *(SMALLER.get(arguments[1], "") + apart).split()]


def stand_ins(folder: Path, models: Path) -> None:
    """Small files under the names that the pages use."""
    base = models / "checkpoints" / assets.CHECKPOINT
    weights = load_file(base)
    small_models.split(models, folder, ("z_image_bf16", "qwen_3_4b", "ae"))
    for place in (folder, folder / "models" / "checkpoints"):
        place.mkdir(parents=True, exist_ok=True)
        assets.link(base, place / "BASE.safetensors")
    assets.link(models / "diffusion_models" / assets.SAFE, folder / "safe.safetensors")
    (folder / "loras").mkdir()
    layers = assets.layers(weights, "attn2.to_")
    for name in ("eraser", "task", "loras/style"):
        size = 0.3 if name == "eraser" else 1e-2  # a probe asks that it does something
        save_file(assets.lora(layers, seed=len(name), size=size), folder / f"{name}.safetensors")
    small = Moments(resolution=64).text()
    seal_file(
        folder / "eraser.safetensors",
        folder / "safety.safetensors",
        Sealing("nudity"),
        moments=small,
    )
    Log(folder / "user" / FOLDER, 2**20).record("started", {})
    picture_folder(folder / "pictures", 2)
    (folder / "prompts.txt").write_text("a beach\n", encoding="utf-8")
    rows = "prompt,categories,nudity_percentage,sd_seed\na beach,sexual,60,1\na cat,sexual,70,2\n"
    for name in ("I2P", "i2p_benchmark", "nudity"):
        (folder / f"{name}.csv").write_text(rows, encoding="utf-8")


def ran(
    stranger: Stranger, first: Path, pages: list[Path], slow: bool = False
) -> list[tuple[Path, list[str], dict]]:
    """(folder, arguments, what was said) of the pages' commands, each page's in its own folder.

    They are those that are not slow, or those alone.
    """
    wanted = []
    for page in pages:
        place = first.parent / (f"slow-{page.stem}" if slow else page.stem)
        shutil.copytree(first, place, copy_function=os.link)
        (place / "custom_nodes").symlink_to(stranger.folder / "custom_nodes")
        for made in MADE_THERE.get(page.stem, ()):
            (place / made).unlink()
        found = expanded(page, place)
        found = [each for each in found if each[1] not in OF_OTHERS]
        wanted += [(place, each) for each in found if (each[1] in SLOW) is slow]
    return driven(stranger, wanted)


def driven(
    stranger: Stranger, wanted: list[tuple[Path, list[str]]]
) -> list[tuple[Path, list[str], dict]]:
    """(folder, arguments, what was said) of commands, one after another in one process."""
    given = json.dumps([(str(place), each) for place, each in wanted])
    done = stranger.run(command_driver.__file__, said=given)
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout)
    return [(place, each, out) for (place, each), out in zip(wanted, said, strict=True)]


def check(done: list[tuple[Path, list[str], dict]]) -> None:
    assert done
    for _, arguments, said in done:
        assert said["code"] == 0, (arguments, said["out"][-500:], said["errors"][-1500:])
        assert "Traceback" not in said["errors"], arguments
