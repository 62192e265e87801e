"""Convolutions by platform: XLA's on GPU and TPU, faster ones on CPU."""
