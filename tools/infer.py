"""``python tools/infer.py PATH ...`` is ``perception infer PATH ...``."""

import sys

from perception.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["infer", *sys.argv[1:]]))
