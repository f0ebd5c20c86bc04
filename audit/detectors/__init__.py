"""Detectors of what pictures show: the interface, one file for each kind, and the registry."""
