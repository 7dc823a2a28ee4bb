"""Fine-tune relative-depth checkpoints into metric depth for your own camera."""
