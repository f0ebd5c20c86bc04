"""What things cost: `python -m modular_safety_lora.lab.benchmarks NAME`, a file here each."""
