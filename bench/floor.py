"""`python -m bench.floor`: see bench.roofline.floor."""

import sys

from bench.roofline.floor import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
