"""Turns images into detections: the compiled predict function and the Detector."""
