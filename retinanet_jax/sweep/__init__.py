"""Sweeps: grids of runs, launchers, reports."""
