"""`python -m retinanet_jax`: the commands of `retinanet-jax`."""

from retinanet_jax.cli.app import main

if __name__ == "__main__":
    main()
