"""`python -m modular_safety_lora.lab.reemergence.pretrain`: train the toy's base model anew."""

import time
from dataclasses import asdict

from ...host.comfyui import enter_comfyui


def main() -> None:
    enter_comfyui()
    from . import base

    start = time.monotonic()

    def report(step: int, loss: float) -> None:
        if step % 200 == 0:
            print(f"{step} {loss:.4f} {time.monotonic() - start:.0f} s", flush=True)

    settings = base.Pretraining()
    print(asdict(settings), flush=True)
    base.save(base.pretrain(settings, report), base.SHIPPED)
    print(
        f"Wrote {base.SHIPPED} ({base.SHIPPED.stat().st_size} bytes) in"
        f" {time.monotonic() - start:.0f} s"
    )


if __name__ == "__main__":
    main()
