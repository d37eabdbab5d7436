"""From a source of labelled images to uint8 arrays on disk."""
