"""``perception VERB ...``: finds the verb, turns bad input into one line.

A verb is a module with ``run(argv) -> int``; it is imported when it is called, so that the help
text needs neither torch nor numba. Exit codes: 0 success, 1 bad input (one line on stderr that
names cause and remedy), 2 wrong usage.
"""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from typing import Any

# verb: (module, what it does)
VERBS: dict[str, tuple[str, str]] = {
    "demo": ("demo", "train a small network on a simulated street and segment a scan with it"),
    "infer": ("infer", "segment point-cloud files with a trained network"),
    "view": ("view", "show a point cloud in a window, or save a picture of it"),
    "convert": ("convert", "write a point cloud in another file format"),
    "fit": ("fit", "train a network from a configuration"),
    "validate": ("fit", "evaluate a network on the validation set"),
    "test": ("fit", "evaluate a network on the test set"),
    "predict": ("fit", "predict the test set"),
    "bench": ("bench", "measure the speed of the engine on this machine"),
    "doctor": ("doctor", "say what is installed, what works, and what to do about the rest"),
}

USAGE = "usage: perception [--traceback] VERB [OPTIONS]"


def help_text() -> str:
    """The page that ``perception --help`` prints."""
    width = max(map(len, [*VERBS, "--traceback"])) + 2
    lines = [USAGE, "", "3D and 4D perception on sparse voxels.", "", "verbs:"]
    lines += [f"  {verb:<{width}}{what}" for verb, (_, what) in VERBS.items()]
    lines += [
        "",
        "options:",
        f"  {'-h, --help':<{width}}this page; after a verb, the verb's page",
        f"  {'--version':<{width}}the version",
        f"  {'--traceback':<{width}}on an error, where in the code it was raised",
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run one verb.

    Args:
        argv: the words after ``perception``; those of the process if None.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    trace = bool(words) and words[0] == "--traceback"
    words = words[1:] if trace else words
    if not words or words[0] in ("-h", "--help", "help"):
        print(help_text())
        return 0 if words else 2
    if words[0] == "--version":
        from perception import __version__

        print(f"perception {__version__}")
        return 0
    verb = words[0]
    if verb not in VERBS:
        print(f"{USAGE}\nperception: no verb {verb!r}; one of {', '.join(VERBS)}", file=sys.stderr)
        return 2
    try:
        module = import_module(f"perception.cli.{VERBS[verb][0]}")
        if VERBS[verb][0] == "fit":
            return int(module.run(words))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("default", UserWarning)
            warnings.filterwarnings("ignore", module="torch|numba|pytorch_lightning|lightning")
            warnings.showwarning = _note
            return int(module.run(words[1:]))
    except SystemExit as stop:  # argparse: 0 after --help, 2 on wrong usage
        return stop.code if isinstance(stop.code, int) else 2
    except KeyboardInterrupt:
        print("\nperception: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader, such as `head`, has gone; nothing is left to tell it.
        sys.stderr.close()
        return 0
    except Exception as error:
        if trace or not _is_input_error(error):
            raise
        print(f"perception {verb}: {one_line(error)}", file=sys.stderr)
        return 1


def one_line(error: BaseException) -> str:
    """An error's message on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _is_input_error(error: Exception) -> bool:
    """Whether the user can do something about an error; the others are ours and keep their trace."""
    if isinstance(error, ValueError | TypeError | OSError | MemoryError | ImportError):
        return True
    names = {kind.__name__ for kind in type(error).__mro__}
    # By name, because their modules may not be loaded: CUDA out of memory, no window, Lightning.
    return bool(names & {"OutOfMemoryError", "WindowError", "MisconfigurationException"})


def _note(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning as one line."""
    print(f"note: {' '.join(str(message).split())}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
