"""What goes wrong while modules are read, merged, held and applied."""

from ..options.errors import PackError


class SafetyError(PackError, RuntimeError):
    """Something would weaken the safety module; the message names it and the way out."""


class ModuleFileError(PackError, ValueError):
    """A module file that can't be used; the message names the file, the fault and the way out."""


class PolicyRefusal(SafetyError):
    """The operator's policy refuses. Its kinds are what programs and figures tell apart."""


class NoLock(PolicyRefusal):
    """A model that never went through Modular Merge."""


class NotWhole(PolicyRefusal):
    """A safety LoRA that something undid or may have undone."""


class NotTrusted(PolicyRefusal, ModuleFileError):
    """A safety LoRA that no trusted key signed."""


class NotAllowed(PolicyRefusal):
    """A safety LoRA, a task LoRA or a base that is not on the operator's list."""


class NotProbed(PolicyRefusal):
    """A merge that did not pass Probe Safety here."""


class ShapeMismatch(PackError, ValueError):
    """A change that does not fit the weight it is for."""
