"""Fine-tuning: unfreeze a source from the top, keep it where it beats the probe on held-out images."""
