"""A web page on which a detector is tried on images of one's own."""
