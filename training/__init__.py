"""Training of safety and task LoRAs, apart: not here yet."""
