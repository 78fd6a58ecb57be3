"""`python -m bench.calibrate`: see bench.roofline.calibrate."""

import sys

from bench.roofline.calibrate import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
