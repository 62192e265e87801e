"""Annotation formats: files to records of images, boxes and categories."""
