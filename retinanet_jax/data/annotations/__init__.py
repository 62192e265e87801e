"""Code that the readers of all layouts share: files, images, fields, classes, splits, checks."""
