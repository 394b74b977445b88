"""LZF, the packing inside ``binary_compressed`` PCD files (format of Marc Lehmann's LibLZF)."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def _unpack(packed: np.ndarray, out: np.ndarray) -> int:
    """Unpack into `out`; the number of bytes written, or −1 where the stream is broken."""
    read, written = 0, 0
    while read < packed.size:
        control = int(packed[read])
        read += 1
        if control < 32:  # a run of literal bytes
            length = control + 1
            if read + length > packed.size or written + length > out.size:
                return -1
            for i in range(length):
                out[written + i] = packed[read + i]
            read += length
        else:  # a copy of what was written before, which may overlap itself
            length = control >> 5
            if length == 7:
                if read >= packed.size:
                    return -1
                length += int(packed[read])
                read += 1
            if read >= packed.size:
                return -1
            start = written - ((control & 31) << 8) - int(packed[read]) - 1
            read += 1
            length += 2
            if start < 0 or written + length > out.size:
                return -1
            for i in range(length):
                out[written + i] = out[start + i]
        written += length
    return written


def lzf_decompress(packed: np.ndarray, size: int) -> np.ndarray | None:
    """The `size` bytes (uint8) packed in `packed` (uint8); None where the stream is broken."""
    # A copy token of three bytes yields 264 bytes at most: a forged size is refused unallocated.
    if size > 88 * packed.size:
        return None
    out = np.empty(size, dtype=np.uint8)
    return out if _unpack(packed, out) == size else None
