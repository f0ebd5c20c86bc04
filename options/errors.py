"""What the errors of this pack have in common."""

from importlib import import_module
from typing import Any

SHOWN = "Modular Safety LoRA"


class PackError(Exception):
    """An error whose message is for people: what is wrong, the way out, and then the details.

    ComfyUI shows an error's class behind the name of its module, which for a node pack is its path
    on the disk. The pack's name stands in its place: `Modular Safety LoRA.SafetyError`. It also
    tells `web/errors.js` which errors are this pack's, whatever node raised them.
    """

    made_in = __name__

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        cls.made_in, cls.__module__ = cls.__module__, SHOWN

    def __reduce__(self) -> tuple[Any, ...]:
        # pickle, by which workers send errors, would look for the class in a module of that name
        return _made, (self.made_in, type(self).__name__, self.args)


def _made(place: str, name: str, args: tuple[Any, ...]) -> PackError:
    found: PackError = getattr(import_module(place), name)(*args)
    return found
