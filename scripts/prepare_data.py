"""`retinanet-jax prepare`: prepares COCO or Pascal VOC, once.

python scripts/prepare_data.py --help
"""

import sys

from retinanet_jax.cli.app import main

if __name__ == "__main__":
    main(["prepare", *sys.argv[1:]])
