"""How much is learned: a new head on a frozen source, a fine-tuned source, or a network from scratch."""
