"""What the operator of this ComfyUI demands: the settings, their file, their check."""
