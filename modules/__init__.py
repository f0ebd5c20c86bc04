"""What a module file is: its format, its seal, its signature. Needs no ComfyUI."""
