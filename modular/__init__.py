"""Module files, their seal, weight changes and the merge: the half that knows LoRA and the host's loader, but no node."""
