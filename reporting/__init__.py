"""Reports of safety LoRAs: what one takes away, what it harms, what is left, where it acts."""
