"""No latent previews: they show what nobody looked at."""

from collections.abc import Callable

import execution
import latent_preview
from comfy.cli_args import LatentPreviewMethod, args


def install() -> Callable[[], None]:
    """Turn them off, also where a prompt asks for them; returns what takes it away again."""
    kept = (
        (args, "preview_method", args.preview_method),
        (latent_preview, "default_preview_method", latent_preview.default_preview_method),
        (latent_preview, "get_previewer", latent_preview.get_previewer),
        (latent_preview, "set_preview_method", latent_preview.set_preview_method),
        (execution, "set_preview_method", execution.set_preview_method),
    )
    args.preview_method = latent_preview.default_preview_method = LatentPreviewMethod.NoPreviews
    latent_preview.get_previewer = lambda *_, **__: None
    latent_preview.set_preview_method = execution.set_preview_method = lambda *_, **__: None

    def taken_away() -> None:
        for place, name, before in kept:
            setattr(place, name, before)

    return taken_away
