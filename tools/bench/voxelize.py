"""Points to voxels. Limit: bytes, points and features read, voxels and their numbers written."""

from __future__ import annotations

from perception.sparse import voxelize
from perception.tools.bench.row import OURS, Row
from perception.tools.bench.timing import Effort, interleave
from perception.tools.bench.workload import Workload

__all__ = ["measure"]


def measure(scan: Workload, effort: Effort) -> list[Row]:
    """The mean of each voxel's features, as a network's input is made."""

    def ours() -> object:
        return voxelize(scan.points, scan.voxel_size, features=scan.features)

    voxels = voxelize(scan.points, scan.voxel_size, features=scan.features)
    moved = (scan.points, scan.features, *voxels)
    return [
        Row(
            "voxelize",
            "points to voxels, mean",
            interleave({OURS: ours}, effort),
            bytes=float(sum(t.nbytes for t in moved)),
            counts={"points": len(scan.points), "sites": len(voxels.coords)},
        )
    ]
