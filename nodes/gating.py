"""The gates of `require_audit`, with the operator's presets and detectors."""

from collections.abc import Callable

from ..audit.detectors import registry
from ..audit.presets import named
from ..audit.report import Opinion
from ..gates.install import install
from .audits import presets
from .settings import Operator, SettingsError, settings_file


def hold(wanted: Operator, mistake: str = "") -> Callable[[], None]:
    """Hold the gates that the settings ask for; returns what takes them away again.

    Raises SettingsError for a preset that there is not. A detector that can't be loaded is told by
    whatever is looked at: until then nothing passes.
    """
    audit = wanted.require_audit
    if mistake or not audit.gates:
        return install(audit, _nobody, mistake)
    try:
        preset = named(audit.preset, presets())
    except SettingsError:
        raise
    except ValueError as error:
        raise SettingsError(f"{settings_file()}: require_audit: {error}") from error

    def opinion() -> Opinion:
        return Opinion(preset, registry.find(preset.detector, wanted.audit_provider))

    return install(audit, opinion)


def _nobody() -> Opinion:
    raise SettingsError("Nobody says by which preset to look.")
