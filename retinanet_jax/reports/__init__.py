"""HTML pages: on the data before training, on a checkpoint after it."""
