"""`retinanet-jax inspect`: shows the data of an experiment before training.

python scripts/inspect_data.py --help
"""

import sys

from retinanet_jax.cli.app import main

if __name__ == "__main__":
    main(["inspect", *sys.argv[1:]])
