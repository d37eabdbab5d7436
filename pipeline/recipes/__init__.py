"""One YAML file per published result; the header says the command, the result and its cost."""
