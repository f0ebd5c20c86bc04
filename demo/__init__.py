"""A small seeded world on the real ComfyUI: for `python dev.py demo`, and for the tests."""
