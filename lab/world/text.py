"""The emoji model's text encoder (emoji/text.py) as training uses it."""

import torch

from ...emoji.text import WIDTH, weights


def encoder():
    """ComfyUI's text encoder of SD3 with these weights, as its checkpoint loader makes it."""
    import comfy.sd
    import comfy.text_encoders.sd3_clip as sd3
    from comfy.supported_models_base import ClipTarget

    prefix = "text_encoders."
    tensors = {name.removeprefix(prefix): value for name, value in weights().items()}
    target = ClipTarget(sd3.SD3Tokenizer, sd3.sd3_clip(clip_l=True, clip_g=False, t5=False))
    clip = comfy.sd.CLIP(target, parameters=sum(each.numel() for each in tensors.values()))
    _, unexpected = clip.cond_stage_model.load_state_dict(tensors, strict=False)
    assert not unexpected, unexpected
    clip.cond_stage_model.float()  # or every caption casts all weights
    return clip


def encode(captions: list[str]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """caption -> tokens (77, 768) and pooled (768): what ComfyUI gives, less its zeros."""
    clip = encoder()
    found = {}
    for each in captions:
        with torch.no_grad():
            tokens, pooled = clip.encode_from_tokens(clip.tokenize(each), return_pooled=True)
        found[each] = tokens[0, :, :WIDTH].float().clone(), pooled[0, :WIDTH].float().clone()
    return found
