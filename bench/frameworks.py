"""`python -m bench.frameworks`: see bench.studies.frameworks."""

import sys

from bench.studies.frameworks import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
