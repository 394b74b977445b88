"""Points to voxels. Limit: bytes, points and features read, voxels and their numbers written."""

from __future__ import annotations

from perception.sparse import voxelize
from perception.tools.bench.row import OURS, Row
from perception.tools.bench.target import FLOAT32, Target
from perception.tools.bench.timing import Effort, interleave
from perception.tools.bench.workload import Workload

__all__ = ["measure"]


def measure(scan: Workload, effort: Effort, *, target: Target = FLOAT32) -> list[Row]:
    """The mean of each voxel's features, as a network's input is made."""
    points = scan.points.to(target.device)
    features = scan.features.to(target.device)
    batch = scan.batch.to(target.device) if int(scan.batch[-1]) else None

    def ours() -> object:
        return voxelize(points, scan.voxel_size, features=features, batch=batch)

    voxels = voxelize(points, scan.voxel_size, features=features, batch=batch)
    moved = (points, features, *voxels)
    cases = {OURS: ours}
    row = Row(
        "voxelize",
        "points to voxels, mean",
        interleave(cases, effort, device=target.device),
        bytes=float(sum(t.nbytes for t in moved)),
        counts={"points": len(points), "sites": len(voxels.coords)},
    )
    if target.is_cuda:
        row.see_kernels_later(cases)
    return [row]
