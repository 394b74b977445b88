"""The first call of a network in a new process: libraries loaded, kernels chosen or compiled.

    python -m perception.tools.bench.cold LIBRARY SITES.pt DEVICE PRECISION

is that process; the device itself, torch and the library are up before the clock starts.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from perception.sparse import SparseTensor
from perception.tools.bench.network import NETWORKS, our_network, their_network
from perception.tools.bench.peers import LIBRARIES, Boxed, Library
from perception.tools.bench.row import OURS, Row
from perception.tools.bench.target import Target
from perception.tools.bench.timing import Timing
from perception.tools.bench.workload import Workload

__all__ = ["main", "measure"]

NETWORK = "unet"
PATIENCE = 240
"""Seconds after which a library's first call is not waited for any longer."""


def measure(
    scan: Workload, *, libraries: Sequence[Library] = (), target: Target, network: str = NETWORK
) -> list[Row]:
    """The first and the second inference of each library in a process of its own."""
    x = scan.tensor()
    rows = [
        Row("cold", f"{NETWORKS[network]}: {what} forward", {}, counts={"sites": x.num_sites})
        for what in ("first", "second")
    ]
    with TemporaryDirectory() as folder:
        file = Path(folder) / "sites.pt"
        torch.save({"coords": x.coords, "features": x.features}, file)
        for name in (OURS, *(library.name for library in libraries)):
            command = [sys.executable, "-m", "perception.tools.bench.cold", name, str(file)]
            command += [target.device.type, target.precision, network]
            try:
                done = subprocess.run(
                    command, capture_output=True, text=True, timeout=PATIENCE, check=True
                )
            except (subprocess.SubprocessError, OSError) as error:
                if name == OURS:
                    raise RuntimeError(f"{error}: {getattr(error, 'stderr', '')}") from None
                rows[0].notes.append(f"{name}: {type(error).__name__}")
                continue
            for row, seconds in zip(rows, json.loads(done.stdout.splitlines()[-1]), strict=True):
                row.timings[name] = Timing(seconds, seconds, 1, host=seconds)
    return rows


def main(argv: Sequence[str]) -> None:
    """Prints the seconds of two calls as JSON."""
    name, file, device, precision, network = argv
    target = Target(torch.device(device), precision)
    stored = torch.load(file, weights_only=True)
    x = SparseTensor(stored["features"], stored["coords"]).to(target.device).to(target.dtype)
    net = our_network(network, {}).to(target.device)
    if name != OURS:
        library = next(known for known in LIBRARIES if known.name == name)
        net = their_network(network, library, net, target, {}).to(target.device)
    net.eval().to(target.dtype)
    warm = torch.ones(64, 64, device=target.device, dtype=target.dtype)
    float((warm @ warm).sum())

    def call() -> float:
        begin = time.perf_counter()
        if name == OURS:
            out = net(SparseTensor(x.features, x.coords)).features
        else:
            out = net(Boxed(x.coords, x.batch_size).tensor(library, x.features)).features
        float(out[0, 0])  # waits
        return time.perf_counter() - begin

    with torch.inference_mode(), target.switches():
        print(json.dumps([call(), call()]))


if __name__ == "__main__":
    main(sys.argv[1:])
