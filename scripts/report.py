"""`retinanet-jax report`: gathers a sweep into a table, a CSV file and a plot.

python scripts/report.py --help
"""

import sys

from retinanet_jax.cli.app import main

if __name__ == "__main__":
    main(["report", *sys.argv[1:]])
