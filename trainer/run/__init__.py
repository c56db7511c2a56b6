"""A training run beside its recipe: processes, the folder, memory and disk, the card."""
