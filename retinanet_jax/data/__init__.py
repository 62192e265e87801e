"""Images and boxes from files, or drawn, to batches of fixed shape."""
