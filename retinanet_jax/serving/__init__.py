"""A web page to try a detector on images and videos."""
