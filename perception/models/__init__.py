"""Networks, one family a file.

Only the names in ``__all__`` may be named by a model file (`perception.io.checkpoint`): a file
chooses among the networks of this package and can never name an import path. Every network keeps
the arguments that rebuild it in ``net.args``, a dictionary of JSON values.
"""

from perception.models.minkunet import MinkUNet
from perception.models.minkunet_crf import MinkUNetCRF
from perception.models.spvcnn import SPVCNN

__all__ = ["SPVCNN", "MinkUNet", "MinkUNetCRF"]
