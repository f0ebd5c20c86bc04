"""What only a machine with CUDA can show: `python dev.py gpu`."""
