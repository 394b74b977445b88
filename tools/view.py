"""``python tools/view.py PATH ...`` is ``perception view PATH ...``."""

import sys

from perception.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["view", *sys.argv[1:]]))
