"""What any training run needs: adapters, loop, checkpoints, processes, previews, output."""
