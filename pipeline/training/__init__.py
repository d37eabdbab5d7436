"""From batches to the best weights."""
