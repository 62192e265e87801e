"""A checkpoint looked into: losses by level, calibration, kinds of errors, curves, confusions."""
