"""`python -m bench.device`: see bench.edge.device."""

import sys

from bench.edge.device import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
