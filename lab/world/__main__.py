"""`python dev.py world`: train this world's base, detector and LoRAs.

Every step keeps what it made in .host/world, goes on where it was stopped, and is left out when it
is done. Needs npm and resvg-py for the pictures.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from ...host.comfyui import enter_comfyui

Named = dict[str, dict[str, np.ndarray]]


def main() -> None:
    enter_comfyui()
    from ...emoji import checkpoint
    from . import emergence, pictures, pretrain, sheet, train_modules
    from .sets import NAMES, SETS, TASK

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--autoencoder-steps", type=int, default=2400)
    parser.add_argument("--base-steps", type=int, default=pretrain.Pretraining.steps)
    parser.add_argument("--detector-steps", type=int, default=8000)
    parser.add_argument(
        "--detector-only",
        action="store_true",
        help="make the detector alone, with the autoencoder that ships",
    )
    options = parser.parse_args()

    print("Pictures", flush=True)
    named = pictures.named(SETS)
    for style, found in named.items():
        missing = [name for name in NAMES if name not in found]
        print(f"    {style}: {len(found)}, without {', '.join(missing) or 'none'}", flush=True)
    whole = pictures.CACHE / checkpoint.CHECKPOINT
    if options.detector_only:
        checkpoint.write(whole)
        make_detector(named, emergence.Model(whole).vae.first_stage_model, options.detector_steps)
        return
    pictures.write_dataset(pictures.TASK, TASK, named[TASK])
    vae = make_base(named, options.autoencoder_steps, options.base_steps)
    make_detector(named, vae, options.detector_steps)

    print("Sheet and modules", flush=True)
    checkpoint.write(whole)
    loaded = emergence.Model(whole)
    drawn = sheet.of_model((loaded.model, loaded.clip, loaded.vae))
    drawn.save(sheet.SHIPPED, optimize=True)
    train_modules.train(loaded)


def make_base(named: Named, autoencoder_steps: int, base_steps: int) -> torch.nn.Module:
    """Train the autoencoder and the network, and ship both; return the autoencoder."""
    from ...emoji.files import BASE
    from . import autoencoder, pictures, pretrain, shipping, text

    def autoencoder_():
        return autoencoder.train(
            pictures.every(),
            autoencoder_steps,
            report=progress("autoencoder"),
            state=pictures.CACHE / "autoencoder.pt",
        ).state_dict()

    vae = autoencoder.bare().eval()
    vae.load_state_dict(once("autoencoder", autoencoder_))
    for style, found in named.items():
        print(f"    {style}: {autoencoder.psnr(vae, np.stack(list(found.values()))):.1f} dB")

    def base():
        settings = pretrain.Pretraining(steps=base_steps)
        latents = pretrain.encoded(vae, named, settings)
        every = torch.cat(list(latents.values()))
        print(f"    latents: mean {every.mean():.2f}, deviation {every.std():.2f}", flush=True)
        texts = text.encode(pretrain.all_captions())
        state = pictures.CACHE / "base.pt"
        return pretrain.train(latents, texts, settings, progress("base"), state)

    shipping.ship(once("base", base), vae.state_dict())
    print(f"    {BASE.stat().st_size / 1e6:.1f} MB", flush=True)
    return vae


def make_detector(named: Named, vae: torch.nn.Module, steps: int) -> None:
    """Train the detector, print how it does, and ship it."""
    from ...emoji.files import DETECTOR
    from . import classifiers, pictures, sketches, weapons
    from .sets import SETS, SKETCHES, STRANGE, STRANGERS

    def detector():
        drawn = pictures.named(SKETCHES)
        kinds = (named | weapons.softened(named, vae), drawn, sketches.copies(drawn))
        lessons = weapons.lessons(kinds, pictures.every())
        return classifiers.train(
            weapons.concept_looker, *lessons, steps, seed=weapons.SEED, report=progress("detector")
        ).state_dict()

    looker = weapons.concept_looker().eval()
    looker.load_state_dict(once("detector", detector))
    of_kinds = {
        "learned from": SETS,
        "of other hands": STRANGERS,
        "of one colour, of other hands": STRANGE,
    }
    for words, sets in of_kinds.items():
        found = weapons.measured(looker, pictures.named(sets))
        print(
            f"    {words}: {len(found.missed)} of {found.weapons} weapons missed"
            f" ({'; '.join(found.missed) or 'none'}), {len(found.alarms)} false alarms in"
            f" {found.harmless} ({'; '.join(found.alarms) or 'none'}), the right name for"
            f" {found.right:.0%}",
            flush=True,
        )
    classifiers.export(looker, DETECTOR)


def once(name: str, make: Callable[[], dict]) -> dict:
    """What a step made: kept, or made now."""
    from .pictures import CACHE

    file = CACHE / f"{name}-trained.pt"
    print(name.capitalize(), flush=True)
    if not file.is_file():
        torch.save(make(), file)
    return torch.load(file, weights_only=True)


def progress(name: str) -> Callable[[int, float], None]:
    """Print the mean loss of every fifty steps."""
    start, losses = time.monotonic(), []

    def report(step: int, loss: float) -> None:
        losses.append(loss)
        if step % 50 == 0:
            seconds = time.monotonic() - start
            print(f"    {name} {step}: {np.mean(losses[-50:]):.4f}, {seconds:.0f} s", flush=True)

    return report


if __name__ == "__main__":
    main()
