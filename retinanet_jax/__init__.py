"""RetinaNet in JAX and Flax: exact, fast, at home on CPU, GPU and TPU."""
