"""`python -m bench.study`: see bench.studies.study."""

import sys

from bench.studies.study import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
