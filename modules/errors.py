"""What goes wrong while modules are read, merged, held and applied."""

from ..options.errors import PackError


class SafetyError(PackError, RuntimeError):
    """Something would weaken the safety module; the message names it and the way out."""


class ShapeMismatch(PackError, ValueError):
    """A change that does not fit the weight it is for."""


class ModuleFileError(PackError, ValueError):
    """A module file that can't be used; the message names the file, the fault and the way out."""
