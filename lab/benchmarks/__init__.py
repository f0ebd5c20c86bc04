"""What things cost, each as a command: `python -m modular_safety_lora.lab.benchmarks.NAME`."""
