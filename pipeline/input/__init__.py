"""From uint8 arrays to batches for training and evaluation."""
