"""What people write by hand, as JSON: one kind of model, and one way to say what is wrong in it."""

import difflib
import json
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

# What must stand there, by pydantic's name of the fault; `{...}` are the fault's own values.
_WORDS = {
    "bool_type": "true or false",
    "dict_type": "an object",
    "finite_number": "a finite number",
    "float_type": "a number",
    "greater_than": "above {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "less_than_equal": "at most {le:g}",
    "list_type": "a list",
    "literal_error": "one of {expected}",
    "model_type": "an object",
    "string_too_short": "a text that is not empty",
    "string_type": "a text",
    "too_long": "a list of at most {max_length}",
    "too_short": "a list of at least {min_length}",
    "tuple_type": "a list",
}


class Checked(BaseModel):
    """Values of the right kind and no other names: a typo must not be read as a wish for nothing.

    Nothing is converted: "1" is no number and 1 is not true.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def parsed(text: str) -> object:
    """What a JSON text says. Raises ValueError for what is none, or says two things.

    A key that stands twice, and NaN, are read by some and dropped by others.
    """

    def once(pairs: list[tuple[str, object]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"`{twice}` is there {names.count(twice)} times; keep one")
        return found

    def refused(word: str) -> None:
        raise ValueError(f"it holds {word}; numbers must be finite")

    try:
        return json.loads(text, object_pairs_hook=once, parse_constant=refused)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error}") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def fault_of(error: ValidationError, model: type[BaseModel]) -> str:
    """What is wrong first, in a line, and how much more is: `size` is 3.5; it must be ..."""
    more = len({each["loc"][:1] for each in error.errors()}) - 1
    return faults_of(error, model)[0] + (f" (and {more} more)" if more else "")


def faults_of(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """All that is wrong, each in a line."""
    return [_said(fault, model) for fault in error.errors()]


def _said(fault: Any, model: type[BaseModel]) -> str:
    where = ".".join(map(str, fault["loc"]))
    kind, names = fault["type"], list(_at(model, fault["loc"][:-1]).model_fields)
    if kind == "missing":
        return f"`{where}` is missing"
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(str(fault["loc"][-1]), names, 1)
        meant = f"; perhaps `{near[0]}` is meant" if near else ""
        return f"there is no `{where}`; there are {', '.join(names)}{meant}"
    if kind == "json_invalid":
        return f"it is not JSON: {fault['ctx']['error']}"
    if kind == "value_error":
        said = str(fault["ctx"]["error"])
        named = not fault["loc"] or any(str(each) in said for each in fault["loc"])
        return said if named else f"`{where}`: {said}"
    wanted = _WORDS[kind].format(**fault.get("ctx", {})) if kind in _WORDS else fault["msg"]
    return f"{where and f'`{where}` is '}{fault['input']!r}; it must be {wanted}"


def _at(model: type[BaseModel], place: tuple[int | str, ...]) -> type[BaseModel]:
    """The model that stands at a place inside another one, where that is one."""
    for name in place:
        field = model.model_fields.get(str(name))
        inside = [] if field is None else [field.annotation, *get_args(field.annotation)]
        models = [each for each in inside if isinstance(each, type) and issubclass(each, BaseModel)]
        if not models:
            break
        model = models[0]
    return model
