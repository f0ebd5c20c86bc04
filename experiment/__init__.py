"""Fine-tune, then audit: whether fine-tuning brings back what a safety LoRA takes away."""
