"""Attacks on a safety module in the emoji world, and how well each detector sees them."""
