"""Training over several processes."""

from __future__ import annotations

from pytorch_lightning.plugins.layer_sync import TorchSyncBatchNorm
from torch import nn

from perception.nn import BatchNorm, SyncBatchNorm

__all__ = ["SparseSyncBatchNorm"]


class SparseSyncBatchNorm(TorchSyncBatchNorm):
    """Synchronizes the batch normalization of `perception.nn` over all processes, and that of torch.

    `Trainer(sync_batchnorm=True, plugins=[SparseSyncBatchNorm()])`; the tasks of this package bring it.
    """

    def apply(self, model: nn.Module) -> nn.Module:
        """Converts the layers in place; parameters and statistics stay the same objects."""
        if isinstance(model, BatchNorm):
            return SyncBatchNorm.convert(model)
        if isinstance(model, nn.modules.batchnorm._BatchNorm):
            converted: nn.Module = super().apply(model)
            return converted
        for name, child in model.named_children():
            setattr(model, name, self.apply(child))
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Makes plain layers of them again."""
        for module in model.modules():
            if type(module) is SyncBatchNorm:
                # They differ in nothing but the computation.
                module.__class__ = BatchNorm  # type: ignore[assignment]
        reverted: nn.Module = super().revert(model)
        return reverted
