"""A published safe model as a sealed safety LoRA: how it differs from its base."""
