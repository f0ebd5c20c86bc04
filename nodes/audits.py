"""What the audit nodes share: presets and detectors, the pack's and the operator's."""

import logging
from collections.abc import Callable
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths
from comfy_api.latest import io

from ..audit.counting import Preset, PresetError
from ..audit.detectors import registry
from ..audit.detectors.interface import Detector
from ..audit.opinion import Opinion
from ..audit.presets import PRESETS, load_presets, named, read_presets
from ..audit.rules import NO_OPINION, Counting
from .inputs import Inputs, mistake
from .settings import FILE, SettingsError, operator, settings_file

logger = logging.getLogger(__name__)


def presets() -> dict[str, Preset]:
    """The shipped presets and the operator's, by name; registers the operator's detectors.

    Raises SettingsError, PresetError or DetectorError for settings that can't be used.
    """
    settings, folder = operator(), Path(folder_paths.get_user_directory())
    registry.register_entries(settings.detectors, folder)
    if isinstance(settings.audit_presets, str):
        own = load_presets(folder / settings.audit_presets)
    else:
        own = read_presets(settings.audit_presets, FILE)
    taken = own.keys() & PRESETS.keys()
    if taken:
        raise PresetError(
            f"{FILE}: the name {min(taken)!r} is taken by a shipped preset; give yours another one."
        )
    return PRESETS | own


def preset_names() -> list[str]:
    """The names of all presets, for a combo; the shipped ones alone if the settings are unusable.

    The fault is told when the node runs, not when ComfyUI starts.
    """
    try:
        return list(presets())
    except (SettingsError, ValueError):
        return list(PRESETS)


def known_presets(*names: str | None) -> bool | str:
    """What `validate_inputs` says of presets, former names too, which a combo's check refuses.

    None is a linked one, which is not known yet.
    """

    def check() -> None:
        there = presets()
        for name in {*names} - {None, NO_OPINION}:
            named(name, there)

    return mistake(check)


def tell_mistakes() -> None:
    """Log what of the settings no audit can use, when ComfyUI starts."""
    try:
        settings = operator()
        presets()
    except SettingsError:
        return  # the policy tells it
    except ValueError as error:
        logger.error(
            "%s: %s. Audits stop with this error until it is corrected.", settings_file(), error
        )
        return
    for name, entry in settings.detectors.items():
        file = settings_file().parent / entry["file"]
        if not file.is_file():
            logger.error("%s: the detector %r: %s is not a file.", settings_file(), name, file)


def opinion_of(preset: Preset) -> Opinion:
    """The preset on its detector, and on the one that it asks, on the operator's provider."""
    provider = operator().audit_provider

    def find(name: str) -> Detector:
        return registry.find(name, provider)

    return Opinion.on(preset, find(preset.detector), find)


def check_counting(preset: str, classes: str = "", second_opinion: str = NO_OPINION) -> None:
    """Raise for classes or a preset that there are not, and for a detector that is not installed.

    Nothing is loaded for it. Raises PresetError, DetectorError, DetectorMissing, SettingsError.
    """
    found, second = Counting(preset, classes=classes, second_opinion=second_opinion).among(
        presets()
    )
    for each in filter(None, (found, second)):
        registry.check_there(each.detector)
        if each.ask:
            registry.check_there(each.ask.preset.detector)


def audit_demands() -> str:
    """The settings as a text, with size and times of the files they name.

    It is part of a node's fingerprint: an audit runs again when one of the files is replaced.
    """
    try:
        settings = operator()
    except SettingsError as error:
        return str(error)
    entries = [each for each in settings.detectors.values() if isinstance(each, dict)]
    named = [*(each.get("file") for each in entries), settings.audit_presets]
    files = [
        Path(folder_paths.get_user_directory(), name) for name in named if isinstance(name, str)
    ]
    states = [each.stat() if each.is_file() else None for each in files]
    return repr(
        (
            settings,
            [found and (found.st_size, found.st_mtime_ns, found.st_ctime_ns) for found in states],
        )
    )


def counting_inputs(rows: Inputs, name: str, **more) -> list[io.Input]:
    """The combo of presets, or of second opinions, with the operator's own."""
    own = [each for each in preset_names() if each not in PRESETS]
    return rows.shown(name, options=[*rows.left[name].there(), *own], **more)


def meter(total: int) -> Callable[[int], None]:
    """Progress on the node, and Cancel between batches."""
    bar = comfy.utils.ProgressBar(total)

    def progress(done: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(done)

    return progress
