"""The error every reader and writer of files raises."""

from __future__ import annotations

from os import PathLike, fspath


class FormatError(ValueError):
    """A file that is not what it should be.

    The message is one line: the file, the cause, the remedy.

    Args:
        path: the file.
        cause: what is wrong with it.
        remedy: what the user can do; may be empty.
    """

    def __init__(self, path: str | PathLike[str], cause: str, remedy: str = "") -> None:
        self.path = fspath(path)
        self.cause = " ".join(str(cause).split())
        self.remedy = " ".join(remedy.split())
        super().__init__(f"{self.path}: {self.cause}" + (f"; {self.remedy}" if remedy else ""))

    def __reduce__(self) -> tuple[type[FormatError], tuple[str, str, str]]:
        # BaseException would call the class with the message alone when unpickled in a worker.
        return type(self), (self.path, self.cause, self.remedy)
