"""Modular Safety LoRA from the command line.

Run `python PACK_FOLDER VERB`, or `python -m modular_safety_lora VERB` where it is a package.
"""

import argparse
import importlib
import io
import sys
from pathlib import Path

from ..options.language import ENGLISH, read_in
from ..storage.faults import worded
from .terminal import close_bars

SHOWN = "python custom_nodes/modular-safety-lora"  # in the examples, from ComfyUI's folder
# a verb is a file here: docstring, `options(parser)` and `work(options)`, which gives the exit code
VERBS = {
    "demo": "show what all this is for, with a small model that ships",
    "seal": "turn a LoRA that you trust into a sealed safety LoRA",
    "extract": "turn a published safe model into a sealed safety LoRA",
    "inspect": "say what LoRA files are, and whether they are intact",
    "report": "measure what a safety LoRA takes away, and what it harms",
    "sign": "sign sealed safety LoRAs with a private key",
    "new-key": "make a private key for signing",
    "settings": "check the operator's settings, or begin them",
    "log": "read the evidence log: whether it is whole, and what happened",
    "interference": "show how LoRAs pull against a safety LoRA",
    "probe": "measure thoroughly what LoRAs leave of a safety LoRA",
    "train-task": "train a task LoRA, apart from a safety LoRA or beside it",
    "train-safety": "train a safety LoRA that erases a concept, from prompts alone",
    "fine-tuning": "find out whether fine-tuning brings back what was taken away",
    "audit": "audit pictures and folders, any number of them",
    "compare": "compare audits of the same prompts and seeds",
    "quality": "measure what safety costs: prompts followed, pictures changed",
    "audit-prompts": "run a prompt set through a model, and audit its pictures",
    "search-prompts": "search for words that bring back what a safety LoRA takes away",
    "reproduce": "measure re-emergence in a small world (in the repository)",
}


def started() -> str:
    """The command for help texts: `python PACK_FOLDER`, or `-m`, as this process was started."""
    by_path = Path(sys.argv[0]).is_dir()
    return f"python {sys.argv[0]}" if by_path else "python -m modular_safety_lora"


class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """The docstring as it is written, and the default of every option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str:
        return (
            super()._get_help_string(action)
            if action.default not in (None, "", False, [])
            else action.help
        )


def main(arguments: list[str] | None = None) -> int:
    """Do what a command line asks for; the exit code. An error is one line on stderr, and 1."""
    prog = started()
    table = "\n".join(f"  {verb:<15}{words}" for verb, words in VERBS.items())
    top = argparse.ArgumentParser(
        prog=prog,
        description=__doc__,
        epilog=f"verbs:\n{table}\n\n{prog} VERB --help says more.",
        formatter_class=Help,
    )
    top.add_argument("verb", choices=VERBS, metavar="VERB", help="what to do")
    top.add_argument("arguments", nargs=argparse.REMAINDER, help="what the verb takes")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that is no Unicode can be printed
            stream.reconfigure(errors="backslashreplace")
    chosen = top.parse_args(arguments)
    verb = importlib.import_module(f".{chosen.verb.replace('-', '_')}", __package__)
    parser = argparse.ArgumentParser(
        prog=f"{prog} {chosen.verb}",
        description=verb.__doc__.replace(SHOWN, prog),
        formatter_class=Help,
        allow_abbrev=False,  # the start of an option may be another that was not meant
    )
    verb.options(parser)
    options = parser.parse_args(chosen.arguments)
    try:
        with read_in(getattr(options, "language", ENGLISH)):
            return verb.work(options) or 0
    except KeyboardInterrupt:
        reason = (
            "stopped. Where rows or checkpoints are kept, the same command continues from here."
        )
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        reason = _said(error)
    close_bars()
    print(f"\n{chosen.verb}: {reason}", file=sys.stderr)
    return 1


def _said(error: Exception) -> str:
    """An error in a line; one of the operating system's without its number."""
    if isinstance(error, OSError) and error.filename:
        error = worded(error, error.filename)
    return " ".join(str(error).split()) or type(error).__name__
