"""ComfyUI's models as this pack needs them.

Loaded weights, parametrisation, lending, one picture, prompts.
"""
