"""Devices, processes and files: what a run stands on, and nothing about detection."""
