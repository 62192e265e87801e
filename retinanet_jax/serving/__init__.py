"""A web page on which a detector is tried on pictures of one's own."""
