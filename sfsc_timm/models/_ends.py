"""What stands on the backbone at every width: the neck into the common space, and the classifier."""

from __future__ import annotations

from typing import Any

from timm.layers import get_device_dtype
from torch import nn

from ..slim import SlimState, slim, slim_state
from ._heads import CosineLinear, create_neck

__all__ = ['Ends']


class Ends(nn.Module):
    """Neck and classifier of a `Slimmable`, which follow its pooling and its widths.

    Attributes:
        embed_dim: Size of the common embedding, 0 where there is no neck.
        embed_dims: All sizes to which it may be cut, ascending, `embed_dim` the last; none without a neck.
        num_classes: Classes of the shared classifier, 0 for none.
        head_hidden_size: What the classifier sees: `embed_dim`, or the pooled features if that is 0.
    """

    embed_dim: int
    embed_dims: tuple[int, ...]
    num_classes: int
    head_hidden_size: int
    neck: nn.Module
    fc: nn.Module
    _pooled_sizes: tuple[int, ...]
    _classifier: tuple[str, float]
    _neck_norm: bool
    _own_necks: bool

    @property
    def widths(self) -> tuple[float, ...]:
        """All widths, ascending."""
        return self._slim.widths

    @property
    def width(self) -> float:
        """The active width."""
        return self._slim.widths[self._slim.index]

    @property
    def _slim(self) -> SlimState:
        state: SlimState = self.__dict__['_slim']
        return state

    @property
    def _pooled(self) -> bool:
        """Whether the features reach the neck pooled; global_pool='' gives timm's unpooled map."""
        pool = self._pool()
        return bool(pool if isinstance(pool, str) else pool.pool_type)

    def extra_repr(self) -> str:
        """What `print(model)` shows of it, beside its parts."""
        found = super().extra_repr()
        sizes = f'embed_dims={self.embed_dims}' if len(self.embed_dims) > 1 else ''
        return ', '.join(filter(None, (found, sizes)))

    def _pool(self) -> Any:
        """Timm's pooling: a module of the model, one of its head, or a transformer's string."""
        pool: Any = getattr(self, 'global_pool', None)
        return self.head.global_pool if pool is None else pool  # type: ignore[union-attr]

    def _pool_factor(self) -> int:
        """Outputs of the pooling for each channel."""
        pool: Any = getattr(self, 'global_pool', None)
        return int(pool.feat_mult()) if hasattr(pool, 'feat_mult') else 1

    def _add_neck(self, norm: bool) -> None:
        """Neck for the pooled features of every width; ('neck', 'fc') end the parameters, as clipping expects."""
        self._modules.pop('neck', None)
        self._modules.pop('fc', None)
        self._neck_norm = norm
        if self.embed_dim:
            dd = get_device_dtype(self)
            self.neck = create_neck(self._pooled_sizes[-1], self.embed_dim, norm, **dd)
            dd['device'] = 'meta'
            twins = [create_neck(size, self.embed_dim, norm, **dd) for size in self._pooled_sizes[:-1]]
            slim(self.neck, twins, self.widths, private=self._own_necks)
            self._activate(self.neck)
        else:
            self.neck = nn.Identity()
        for attributes, size in zip(self._slim.attributes, self._pooled_sizes, strict=True):
            attributes['head_hidden_size'] = self.embed_dim or size
        self.head_hidden_size = self._slim.attributes[self._slim.index]['head_hidden_size']
        self.neck.train(self.training)

    def _resize_neck(self, factor: float) -> None:
        """Follows a pooling with more or fewer outputs per channel (catavgmax)."""
        if factor != 1:
            self._pooled_sizes = tuple(int(size * factor) for size in self._pooled_sizes)
            self._add_neck(self._neck_norm)
        self.head_hidden_size = self._slim.attributes[self._slim.index]['head_hidden_size']

    def _add_classifier(self, num_classes: int) -> None:
        kind, scale = self._classifier
        dd = get_device_dtype(self)

        def create(in_features: int, **dd: Any) -> nn.Module:
            if not num_classes:
                return nn.Identity()
            if kind == 'cosine':
                return CosineLinear(in_features, num_classes, scale, **dd)
            return nn.Linear(in_features, num_classes, **dd)

        self.num_classes = num_classes
        self.fc = create(self._slim.attributes[-1]['head_hidden_size'], **dd)
        dd['device'] = 'meta'
        slim(self.fc, [create(a['head_hidden_size'], **dd) for a in self._slim.attributes[:-1]], self.widths)
        self._activate(self.fc)
        self.fc.train(self.training)

    def _activate(self, module: nn.Module) -> None:
        """Brings a new part to the active width."""
        for child in module.modules():
            if (state := slim_state(child)) is not None:
                state.switch(child, self._slim.index)
