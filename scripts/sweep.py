"""`retinanet-jax sweep`: many runs that differ in some fields, as a table and a plot.

python scripts/sweep.py --help
"""

import sys

from retinanet_jax.cli.app import main

if __name__ == "__main__":
    main(["sweep", *sys.argv[1:]])
