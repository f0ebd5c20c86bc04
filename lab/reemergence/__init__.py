"""The re-emergence benchmark: a toy world, its arms, its measures (README.md here)."""
