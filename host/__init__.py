"""ComfyUI's models as this pack needs them: loaded weights, parametrisation, lending, one picture,
prompts.
"""
