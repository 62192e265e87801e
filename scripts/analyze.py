"""`retinanet-jax analyze`: looks into a trained network, on one page.

python scripts/analyze.py --help
"""

import sys

from retinanet_jax.cli.app import main

if __name__ == "__main__":
    main(["analyze", *sys.argv[1:]])
