"""A search over config keys: many short runs, judged on the validation split."""
