"""Collections of posed images: what NeRFs, Gaussians and reconstruction networks start from.

``read_posed(path)`` reads ``transforms.json`` (Blender, instant-ngp, nerfstudio), COLMAP models
and LLFF's ``poses_bounds.npy`` into one type, :class:`PosedImages`.
"""

from perception.datasets.posed.collection import PosedImages
from perception.datasets.posed.colmap import read_colmap
from perception.datasets.posed.guess import read_posed
from perception.datasets.posed.llff import read_llff
from perception.datasets.posed.transforms import read_transforms

__all__ = ["PosedImages", "read_colmap", "read_llff", "read_posed", "read_transforms"]
