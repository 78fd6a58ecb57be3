"""`python -m bench.overhead`: see bench.edge.overhead."""

import sys

from bench.edge.overhead import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
