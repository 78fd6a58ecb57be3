"""`python -m bench.paper`: see bench.studies.paper."""

import sys

from bench.studies.paper import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
