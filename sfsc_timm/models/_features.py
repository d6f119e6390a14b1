"""timm's wrappers for `features_only`, at dense speed in evaluation: they run the parts of a model, not the model."""

from __future__ import annotations

from typing import Any, ClassVar

from timm.models import FeatureDictNet, FeatureHookNet, FeatureListNet
from torch import Tensor, nn

from ..slim import Guard, SlimState, densify, frozen, guards
from ._widths import get_width, get_widths

__all__ = ['WRAPPERS']


class _Wrapper(nn.Module):
    """Mixin that makes the wrapper a root, since the model itself is not in it."""

    timm_class: ClassVar[type[nn.Module]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        widths = get_widths(self)
        state = SlimState(widths, {}, ({},) * len(widths))
        state.index = widths.index(get_width(self))
        if not guards(self):  # a hook wrapper may hold the model as it is, which looks after itself
            state.guard = Guard()
        self.__dict__['_slim'] = state

    def forward(self, x: Tensor) -> Any:
        """As timm's."""
        if self.__dict__['_slim'].guard is None:
            return super().forward(x)
        with frozen(self):
            return super().forward(x)

    def train(self, mode: bool = True) -> Any:
        """As in torch; also drops the evaluation copies."""
        for guard in guards(self):
            guard.drop()
        return super().train(mode)

    def __prepare_scriptable__(self) -> nn.Module:
        """`torch.jit.script` compiles the active width, as timm's own wrapper of a dense model."""
        dense = densify(self)
        dense.__class__ = self.timm_class
        return dense


class SlimFeatureListNet(_Wrapper, FeatureListNet):
    """A list of feature maps."""

    timm_class = FeatureListNet


class SlimFeatureDictNet(_Wrapper, FeatureDictNet):
    """Feature maps by name."""

    timm_class = FeatureDictNet


class SlimFeatureHookNet(_Wrapper, FeatureHookNet):
    """Feature maps that hooks pick up."""

    timm_class = FeatureHookNet


# By timm's name of the kind. 'getter' calls the model itself, and 'fx' makes a graph, which runs on views.
WRAPPERS: dict[str, type[nn.Module]] = {
    'list': SlimFeatureListNet,
    'dict': SlimFeatureDictNet,
    'hook': SlimFeatureHookNet,
}
