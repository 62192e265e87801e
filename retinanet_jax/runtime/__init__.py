"""Devices, processes and files of a run; independent of detection."""
