"""From images to detections: the compiled predict function and the Detector."""
