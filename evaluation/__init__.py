"""Prompt sets: pictures made from a CSV of prompts and seeds, audited as they come."""
