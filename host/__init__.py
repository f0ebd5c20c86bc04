"""ComfyUI's models as this pack needs them: weights, parametrisation, lending, one picture."""
