"""The training scripts as commands: their arguments, how they are run, and what they leave."""

import subprocess
import sys

import torch
from modular_safety_lora.lab import assets
from modular_safety_lora.lab.server import PACK
from safetensors.torch import load_file

# by path, as launchers start it
SCRIPT = str(PACK / "training" / "train_task_lora.py")
# for processes that share this machine
TOGETHER = {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
LAUNCH = [
    *("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"),
    *("--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"),
    *("--main_process_port", "0"),
]
SMALL = ["--rank", "2", "--resolution", "32", "--learning-rate", "1e-3"]


def task(models, folder, output, *more: str) -> list[str]:
    """The arguments of a small task run."""
    checkpoint = models / "checkpoints" / assets.CHECKPOINT
    files_ = ["--checkpoint", str(checkpoint), "--data", str(folder), "--output", str(output)]
    return ["train-task", *files_, "--targets", "cross-attention", *SMALL, *more]


def launched(arguments: list[str], **options) -> subprocess.CompletedProcess:
    """What a new Python with these arguments printed."""
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=300, **options
    )


def same(one, other) -> bool:
    left, right = load_file(one), load_file(other)
    return left.keys() == right.keys() and all(
        torch.equal(value, right[name]) for name, value in left.items()
    )
