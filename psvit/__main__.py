"""``python -m psvit``: the command ``psvit-search``."""

import sys

from psvit.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
