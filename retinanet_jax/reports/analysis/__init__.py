"""The page about a checkpoint after training: errors, calibration, confusions, losses."""
