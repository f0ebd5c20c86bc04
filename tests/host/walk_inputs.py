"""The host's own nodes, and a value for each socket: what a walk over them calls, and with what."""

import asyncio
from collections.abc import Iterator

import execution
from walk_parts import Parts

import nodes

WATCHED = {
    "MODEL",
    "CLIP",
    "GUIDER",
    "SAMPLER",
    "CONDITIONING",
    "HOOKS",
    "LORA_MODEL",
    "MODEL_PATCH",
    "CONTROL_NET",
}
ANY = "*"  # of a socket that takes whatever is wired to it
# nothing with weights in it, nor what changes any: a node with no other socket is walked over
# when all are
PASSED_ON = {"SAMPLER", "CONDITIONING", "CONTROL_NET"}
SMALL = {
    **{
        "steps": 2,
        "length": 5,
        "video_frames": 2,
        "batch_size": 1,
        "rank": 4,
        "max_length": 4,
        "block_number": 1,
    },
    **{"rtol": 1.0, "atol": 1.0},
}
DEFAULTS = {"BOOLEAN": False, "INT": 1, "FLOAT": 1.0, "STRING": "a picture"}


class NothingToFill(Exception):
    """No value of the kind that a socket asks for."""


def stock_nodes() -> dict[str, type]:
    """The host's own nodes by id, without those that call services.

    The extra ones are loaded as the host loads them.
    """
    asyncio.run(nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False))
    return {
        name: node
        for name, node in nodes.NODE_CLASS_MAPPINGS.items()
        if getattr(node, "RELATIVE_PYTHON_MODULE", "comfy_extras").startswith("comfy_extras")
    }


def sockets(given: dict) -> Iterator[tuple[str, bool, object, dict]]:
    """Inputs as a node declares them: name, if it is required, type (or options), settings.

    A type can be a list of options.
    """
    for need in ("required", "optional"):
        for name, spec in given.get(need, {}).items():
            settings = spec[1] if len(spec) > 1 else {}
            kind = (
                settings["template"]["allowed_types"]
                if spec[0] == "COMFY_MATCHTYPE_V3"
                else spec[0]
            )
            yield name, need == "required", kind, settings


def accepted(given: dict) -> set[str]:
    """All types that a node's sockets take, those inside inputs that grow or choose too."""
    found = set()
    for _, _, kind, settings in sockets(given):
        inner = [settings["template"]["input"]] if kind == "COMFY_AUTOGROW_V3" else []
        inner += (
            [option["inputs"] for option in settings["options"]]
            if kind == "COMFY_DYNAMICCOMBO_V3"
            else []
        )
        found |= set().union(*map(accepted, inner))
        if isinstance(kind, str):
            found |= set(kind.split(","))
    return found


def returned(node: type) -> list[str]:
    return [each if isinstance(each, str) else "COMBO" for each in node.RETURN_TYPES]


def is_watched(node: type, passing_on: bool = True) -> bool:
    """Is it walked over? `passing_on`: those too that only pass on what guides a sampling."""
    given, made, kinds = accepted(node.INPUT_TYPES()), {*returned(node)}, {*WATCHED, ANY}
    if not passing_on:
        kinds -= PASSED_ON
        given -= {"CLIP"} if "CONDITIONING" in made else set()  # it encodes a text
    return bool((given | made) & kinds)


class Filling:
    """A value for every required input of a node, and for some or all of the optional ones.

    The optional ones are those of the types walked over, or all with `optional`.
    """

    def __init__(self, parts: Parts, node: type, optional: bool = False):
        self.parts, self.node, self.optional = parts, node, optional

    def __call__(self, given: dict | None = None, prefix: str = "") -> dict[str, object]:
        values = {}
        for name, required, kind, settings in sockets(given or self.node.INPUT_TYPES()):
            if kind == "COMFY_AUTOGROW_V3":
                template = settings["template"]
                if template["min"] or self.optional:
                    first = template.get("names", [f"{template.get('prefix')}0"])[0]
                    inner = next(
                        iter(next(each for each in template["input"].values() if each).values())
                    )
                    values |= self({"required": {first: inner}}, f"{prefix}{name}.")
            elif kind == "COMFY_DYNAMICCOMBO_V3":
                option = settings["options"][0]
                values |= {prefix + name: option["key"]} | self(
                    option["inputs"], f"{prefix}{name}."
                )
            elif required or self.optional or (isinstance(kind, str) and kind in WATCHED):
                try:
                    values[prefix + name] = self.value(name, kind, settings)
                except NothingToFill:
                    if required:
                        raise
        return values

    def value(self, name: str, kind: object, settings: dict) -> object:
        """The default, or the first of several options.

        A default that is the size of a picture or a training is made small.
        """
        options = kind if isinstance(kind, list) else settings.get("options")
        if options is not None:
            if not options:
                raise NothingToFill(f"there is no file for {name}")
            return settings.get("default", options[0])
        if kind in DEFAULTS:
            small = SMALL | dict.fromkeys(("width", "height"), self.parts.pixels)
            default = small.get(name, settings.get("default", DEFAULTS[kind]))
            return default or DEFAULTS[kind] if settings.get("multiline") else default
        try:
            return self.parts.value("MODEL" if kind == ANY else kind.split(",")[0], name, self.node)
        except KeyError:
            raise NothingToFill(f"there is no {kind} for {name}") from None


def called(node: type, inputs: dict[str, object]) -> list[tuple[str, object]]:
    """What a node returns, each with its type, called as the host's executor calls it."""
    data, _, v3 = execution.get_input_data(inputs, node, "1")
    outputs, _, expands, pending = asyncio.run(
        execution.get_output_data("walk", "1", node(), data, v3_data=v3)
    )
    if expands or pending:
        raise NothingToFill("it stands for other nodes, which only a server expands")
    return [(kind, each[0]) for kind, each in zip(returned(node), outputs, strict=False) if each]
