"""Figures: one opener of matplotlib, one palette. Knows nothing of the pack."""
