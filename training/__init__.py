"""Training of safety and task LoRAs, apart: one engine for the nodes and the command line."""
