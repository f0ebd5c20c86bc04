"""What is left of a safety module in what a network computes (docs/threat-model.md)."""
