"""Attacks on safety modules in the emoji world, and how well each detector sees them.

    python -m modular_safety_lora.lab.attacks --phase calibrate
    python -m modular_safety_lora.lab.attacks --phase fresh
    python -m modular_safety_lora.lab.attacks --report

The first writes thresholds.json from harmless merges, which is committed before the second draws
its seeds. Rows and modules are kept in .host/attacks; a run that was stopped goes on. Needs npm and
resvg-py for the pictures.
"""

import argparse

from ...host.comfyui import enter_comfyui
from ..world import pictures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--phase", choices=["calibrate", "fresh"])
    parser.add_argument("--report", action="store_true", help="from the rows that are there")
    options = parser.parse_args()
    folder = pictures.CACHE.parent / "attacks"
    enter_comfyui()
    from . import report, run
    from .store import Store

    store = Store(folder / "rows.jsonl")
    if options.phase:
        store = run.collect(options.phase, folder)
    if options.phase == "calibrate":
        report.calibrate(store.rows)
    elif options.report or options.phase:
        report.write(store.rows)


if __name__ == "__main__":
    main()
