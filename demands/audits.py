"""The operator's own presets and detectors, as the settings name them."""

from collections.abc import Iterator

from ..audit.counting import Preset, PresetError
from ..audit.detectors import registry
from ..audit.presets import PRESETS, load_presets, read_presets
from .fields import Operator
from .file import FILE


def presets_of(settings: Operator) -> dict[str, Preset]:
    """The shipped presets and the operator's, by name; registers the operator's detectors.

    Raises PresetError or DetectorError for what can't be used.
    """
    registry.register_entries(settings.detectors, settings.folder)
    if isinstance(settings.audit_presets, str):
        own = load_presets(settings.folder / settings.audit_presets)
    else:
        own = read_presets(settings.audit_presets, FILE)
    taken = own.keys() & PRESETS.keys()
    if taken:
        raise PresetError(
            f"{FILE}: the name {min(taken)!r} is taken by a shipped preset; give yours another one."
        )
    return PRESETS | own


def mistakes(settings: Operator) -> Iterator[str]:
    """What of the settings no audit can use."""
    try:
        presets_of(settings)
    except ValueError as error:
        yield f"{error}. Audits stop with this error until it is corrected."
        return
    for name, entry in settings.detectors.items():
        file = settings.folder / entry["file"]
        if not file.is_file():
            yield f"the detector {name!r}: {file} is not a file."
