"""`python -m sonoloop` is `sonoloop`."""

import sys

from sonoloop.cli import main

if __name__ == "__main__":
    sys.exit(main())
