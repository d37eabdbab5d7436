"""What the model is worth on the test split."""
