"""``python tools/train.py --config ...`` is ``perception fit --config ...``."""

import sys

from perception.cli.fit import run

if __name__ == "__main__":
    sys.exit(run(["fit", *sys.argv[1:]]))
