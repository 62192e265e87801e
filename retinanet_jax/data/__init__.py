"""From images and boxes, in files or drawn, to batches of fixed shape."""
