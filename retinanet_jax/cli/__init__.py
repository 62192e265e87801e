"""The commands of `retinanet-jax`: a module each, with add_arguments(parser) and run(arguments)."""
