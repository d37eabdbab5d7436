"""Options of the methods of training: the branches of the config tree that are choices."""
