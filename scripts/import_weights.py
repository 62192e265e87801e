"""`retinanet-jax import`: turns a public RetinaNet into a workdir of ours.

python scripts/import_weights.py --help
"""

import sys

from retinanet_jax.cli.app import main

if __name__ == "__main__":
    main(["import", *sys.argv[1:]])
