"""Prepared datasets: written once as ArrayRecord, read without TensorFlow."""
