"""Pictures and windows of point clouds.

>>> import numpy as np
>>> from perception.io import PointCloud
>>> from perception.viz import picture
>>> picture(PointCloud(np.random.default_rng(0).normal(size=(1000, 3))), title="noise").size
(1600, 900)
"""

from perception.viz.picture import picture, render, save_picture

__all__ = ["picture", "render", "save_picture"]
