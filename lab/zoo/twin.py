"""What a row of the zoo says: a family's small sizes, its latents, its text and its layers."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from ...host.families import of_class

WIDTH = 64  # of a token of text and of the pooled text, where a row doesn't say otherwise
HEAD = [8, 12, 12]  # how frames, rows and columns share the 32 channels of a head

Draw = Callable[..., torch.Tensor]  # seeded normal numbers of a shape


def nothing(draw: Draw, tokens: int) -> dict:
    """No entries beside the pooled text."""
    return {}


def mask(tokens: int, padding: int = 0) -> torch.Tensor:
    """An attention mask (1, tokens): 1, and 0 for the `padding` at the end."""
    return (torch.arange(tokens) < tokens - padding).long()[None]


def masked(draw: Draw, tokens: int) -> dict:
    """The mask of a text encoder that takes a prompt as long as it is."""
    return {"attention_mask": mask(tokens)}


def padded(draw: Draw, tokens: int) -> dict:
    """The mask of a text encoder that fills prompts up: the last two tokens are padding."""
    return {"attention_mask": mask(tokens, 2)}


@dataclass(frozen=True)
class Text:
    """What a family's stock text encode node gives for one prompt."""

    width: int = WIDTH  # of a token
    pooled: int | None = None  # width of the pooled text; where there is none the host gives None
    fixed: int | None = None  # tokens of every prompt, where the host's text encoder fixes them
    extra: Callable[[Draw, int], dict] = nothing  # the entries beside the pooled text

    def entry(self, draw: Draw, tokens: int) -> list:
        """One entry of a CONDITIONING: the text (1, tokens, width), and the dict of the rest."""
        text = draw(1, self.fixed or tokens, self.width)
        pooled = draw(1, self.pooled) if self.pooled else None
        return [text, {"pooled_output": pooled, **self.extra(draw, tokens)}]


PLAIN = Text()
CLIP = Text(pooled=WIDTH, fixed=77)
BOTH = Text(pooled=WIDTH)  # the tokens of one text encoder and the pooled text of another
MASKED = Text(extra=masked)
PADDED = Text(extra=padded)


@dataclass(frozen=True)
class Twin:
    """A small model of a family: how it is made and fed, and what is known of its network."""

    key: str
    roles: dict[str, str]  # the names of its layers, by what they do
    unet: dict  # its unet_config
    latent: tuple[int, ...] = (16, 8, 8)  # one picture: channels, frames of a video, sides
    wide: tuple[int, ...] = (16, 8, 12)  # one that is not square
    side: int = 64  # of a picture that it trains on, in pixels
    text: Text = PLAIN
    config: str = ""  # the class in comfy.supported_models; "" is the key
    title: str = ""  # "" is the family's
    found: str | None = ""  # as what the host finds its weights, where their sizes hide the class
    trains: bool = True  # False where the host's network has no gradient
    writes_over: bool = False  # whether the network writes over what its gradient needs
    adjust: Callable[[torch.nn.Module, type], None] | None = None  # what no unet_config can say

    def __post_init__(self):
        config = self.config or self.key
        told = {"config": config, "title": self.title or of_class(config).title}
        told |= {"found": config if self.found == "" else self.found}
        for name, value in told.items():
            object.__setattr__(self, name, value)


FOUR = {"latent": (4, 8, 8), "wide": (4, 8, 12)}  # channels instead of 16
video = partial(Twin, latent=(16, 1, 8, 8), wide=(16, 1, 8, 12))
