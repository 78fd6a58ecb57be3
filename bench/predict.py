"""Ask an exported model: `python -m bench.predict`; see bench.edge.predict."""

import sys

from bench.edge.predict import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
