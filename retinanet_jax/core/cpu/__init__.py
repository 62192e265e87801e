"""Convolutions as each platform computes them fastest."""
