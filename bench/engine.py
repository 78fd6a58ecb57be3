"""`python -m bench.engine`: see bench.edge.engine."""

import sys

from bench.edge.engine import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
