"""The gates of `require_audit`, with the operator's presets and detectors."""

import logging
from collections.abc import Callable

from ..audit.detectors import registry
from ..audit.detectors.interface import Detector
from ..audit.opinion import Opinion
from ..audit.presets import named
from .audits import presets
from .carrying import always, end
from .settings import Operator, SettingsError, settings_file

logger = logging.getLogger(__name__)


def hold(wanted: Operator, mistake: str = "") -> Callable[[], None]:
    """Hold the gates that the settings ask for; returns what takes them away again.

    Raises SettingsError for a preset that there is not, and where this ComfyUI is not as the gates
    need it. With a `mistake` nothing passes; then as many gates hold as can. A detector that can't
    be loaded is told by whatever is looked at: until it can, nothing passes.
    """
    audit = wanted.require_audit
    if not audit.gates:
        return lambda: None
    # what they need of the host is asked for only where they hold
    from ..gates.install import install

    if mistake:
        return install(audit, _nobody, mistake)
    try:
        preset = named(audit.preset, presets())
    except SettingsError:
        raise
    except ValueError as error:
        raise SettingsError(f"{settings_file()}: require_audit: {error}") from error
    try:
        registry.check_there(preset.detector)
    except (ValueError, ImportError) as error:
        logger.error("require_audit: %s Until then no picture is shown.", error)

    def find(name: str) -> Detector:
        return registry.find(name, wanted.audit_provider)

    def opinion() -> Opinion:
        return Opinion.on(preset, find(preset.detector), find)

    try:
        opened = install(audit, opinion)
    except (AttributeError, ImportError, RuntimeError) as error:
        raise SettingsError(
            f"{settings_file()}: require_audit can't hold on this ComfyUI ({error}). Update the"
            " pack, or take the setting out."
        ) from error
    ended = always() if "decode" in audit.gates or audit.inputs else end

    def taken_away() -> None:
        ended()
        opened()

    return taken_away


def _nobody() -> Opinion:
    raise SettingsError("Nobody says by which preset to look.")
