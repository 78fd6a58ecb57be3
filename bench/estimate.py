"""`python -m bench.estimate`: see bench.roofline.estimate."""

import sys

from bench.roofline.estimate import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
