"""`python -m bench.repeatability`: see bench.edge.repeatability."""

import sys

from bench.edge.repeatability import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
