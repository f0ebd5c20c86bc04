"""A small real text-to-image model that ships: it draws emoji, and weapons stand for the unsafe.

Base, safety LoRA, styles and detector are files here; `python dev.py world` makes them
(lab/world/README.md). The folder is not called `example`: ComfyUI looks for workflows in one of
that name, and serves it.
"""
