"""What the audit nodes share: presets and detectors, the pack's and the operator's."""

import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths
from comfy_api.latest import io

from ..audit.counting import Preset
from ..audit.detectors import registry
from ..audit.detectors.interface import Detector
from ..audit.opinion import Opinion
from ..audit.presets import PRESETS, named
from ..audit.rules import NO_OPINION, Counting
from ..demands.audits import mistakes, presets_of
from .inputs import Inputs, mistake
from .settings import SettingsError, operator, settings_file

logger = logging.getLogger(__name__)


def presets() -> dict[str, Preset]:
    """The shipped presets and the operator's, by name; registers the operator's detectors.

    Raises SettingsError, PresetError or DetectorError for settings that can't be used.
    """
    return presets_of(operator())


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
    with contextlib.suppress(SettingsError):  # the policy tells it
        for each in mistakes(operator()):
            logger.error("%s: %s", settings_file(), each)


def opinion_of(preset: Preset) -> Opinion:
    """The preset on its detector, and on the one that it asks, on the operator's provider."""
    provider = operator().audit_provider

    def find(name: str) -> Detector:
        return registry.find(name, provider)

    return Opinion.on(preset, find(preset.detector), find)


def known_counting(
    preset: str | None, classes: str | None, second_opinion: str | None
) -> bool | str:
    """What `validate_inputs` says before anything is sampled; what is linked is not known yet."""
    if preset is None:
        return known_presets(second_opinion)
    return mistake(lambda: check_counting(preset, classes or "", second_opinion or NO_OPINION))


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
