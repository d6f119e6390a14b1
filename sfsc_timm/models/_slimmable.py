"""The slimmable model: a timm model at several widths, with one metric space on top."""

# Annotations are not postponed here: FX writes those of `forward` into its code, and TorchScript wants types there.

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from ..slim import Guard, SlimState, frozen, guards, slim, slim_state
from ._added import add_width
from ._alone import warn_if_alone
from ._checkpointing import checkpointed
from ._ends import Ends
from ._extract import extract, scriptable
from ._family import Family
from ._narrow import build_narrow
from ._sizes import check_sizes, leading
from ._widths import _index, at_width, set_width

__all__ = ['Slimmable']


class Slimmable(Family, Ends):
    """Mixin in front of a timm model class; see `SlimmableResNet` for a family.

    A family gives `dense`, which builds timm's own model at a width, see `Family`. Everything else is the same for all.

    Attributes:
        embed_dim: Size of the common embedding, 0 where there is no neck.
        embed_dims: All sizes to which it may be cut, ascending; `embed_dim` is the last.
        num_features: Channels of the backbone's last feature map at the active width.
        head_hidden_size: What the classifier sees: `embed_dim`, or the pooled features if that is 0.
        feature_info: timm's, with the channels of the active width.
        fresh_parts: What a warm start from plain timm weights left new: 'neck', 'fc' or both.
    """

    feature_info: list[dict[str, Any]]
    fresh_parts: tuple[str, ...] = ()
    pretrained_cfg: dict[str, Any]
    num_features: int
    _family_args: dict[str, Any]
    _full_width: float

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        name = type(self).__name__
        raise TypeError(f"{name} is made by timm.create_model('sfsc_...') or {name}.build(...), not by its constructor")

    @classmethod
    def timm_class(cls) -> type[nn.Module]:
        """The class of timm that this one stands in front of."""
        return cls.__mro__[cls.__mro__.index(Ends) + 1]

    @classmethod
    def build(
        cls,
        widths: Sequence[float] | None = None,
        width: float = 1.0,
        embed_dim: int | None = None,
        embed_dims: Sequence[int] | None = None,
        neck_norm: bool | None = None,
        own_necks: bool = False,
        classifier_type: str = 'linear',
        cosine_scale: float = 16.0,
        num_classes: int = 1000,
        full_width: float = 1.0,
        device: Any = None,
        dtype: Any = None,
        **kwargs: Any,
    ) -> 'Slimmable':
        """Builds the slimmable model; `timm.create_model` comes here with its keyword arguments.

        Args:
            widths: Different numbers in (0, 1] that contain 1.0 (None: the family's default); channels are rounded by
                `scale_channels`.
            width: The active one to begin with.
            embed_dim: Size of the common embedding (None: 256, or the largest of `embed_dims`); 0 leaves the neck out,
                for plain classification.
            embed_dims: Sizes of which each is to be an embedding of its own, see `sfsc_timm.models._sizes`.
            neck_norm: Whether a BatchNorm1d per width ends the neck (None: the family's default).
            own_necks: Whether every width has a neck of its own. Otherwise a narrow one uses the leading columns of
                the full one's.
            classifier_type: 'linear' (with bias) or 'cosine' (scaled cosines, no bias).
            cosine_scale: Factor on the cosines.
            num_classes: Classes of the shared classifier; 0 for none, the output is then the embedding.
            full_width: What the widths are fractions of. With 0.25 and widths=(1.0,) it is the network that width 0.25
                would be, initialised and trained on its own.
            device: Where to put the parameters.
            dtype: Their type.
            **kwargs: The timm family's own arguments.

        Raises:
            ValueError: If an argument is out of its range.
            TypeError: If the family does not know an argument.
        """
        widths = cls.choose_widths(widths, full_width, kwargs)
        index = _index(widths, width)
        if (embed_dim or 0) < 0 or num_classes < 0:
            raise ValueError(f'embed_dim and num_classes must be >= 0, got {embed_dim} and {num_classes}')
        sizes = check_sizes(embed_dim, embed_dims)
        if own_necks and not sizes:
            raise ValueError('own_necks must be left out where there is no neck, got True with embed_dim=0')
        if not 0.0 < full_width <= 1.0:
            raise ValueError(f'full_width must be in (0, 1], got {full_width}; 1.0 is the whole network')
        if classifier_type not in ('linear', 'cosine'):
            raise ValueError(f"classifier_type must be 'linear' or 'cosine', got {classifier_type!r}")
        scales = [w * full_width for w in widths]
        model: Any = cls.dense(scales[-1], num_classes=0, device=device, dtype=dtype, **kwargs)
        made = {'num_classes': 0, 'device': 'meta', 'dtype': dtype, **kwargs}
        twins: list[Any] = [build_narrow(cls, s, **made) for s in scales[:-1]]
        model.__class__ = cls
        slim(model, twins, widths, cls.packed)
        if slim_state(model) is None:  # widths=(1.0,): nothing differs, but the root still answers for its widths
            model.__dict__['_slim'] = SlimState(widths, {}, ({},) * len(widths))
        for attributes in model._slim.attributes:
            attributes.pop('embed_dim', None)  # a transformer's width has the name that the common embedding's size has
        model._slim.guard = Guard()
        model._family_args = kwargs
        model._full_width = full_width
        model._pooled_sizes = tuple(m.head_hidden_size for m in (*twins, model))
        model._classifier = (classifier_type, cosine_scale)
        model.embed_dims, model.embed_dim = sizes, max(sizes, default=0)
        model._record_feature_info(twins)
        model._own_necks = own_necks
        model._add_neck(cls.neck_norm if neck_norm is None else neck_norm)
        model._add_classifier(num_classes)
        model.set_width(widths[index])
        return model

    def set_width(self, width: float) -> None:
        """Makes `width` the active one, for every later forward.

        Raises:
            ValueError: If the model was not created with this width; the message lists the known ones.
        """
        set_width(self, width)

    def at_width(self, width: float) -> AbstractContextManager[Any]:
        """`with model.at_width(0.25):` sets a width for the block, then goes back.

        Raises:
            ValueError: As `set_width`.
        """
        return at_width(self, width)

    def add_width(self, width: float) -> None:
        """Gives the model a width that it was not made with, and not trained at; the active one stays.

        It is a slice of the weights that there are, and its norms start as the leading slices of the next wider
        width's: `estimate_statistics` and `sfsc_timm.refit` fit it to images that need no labels. The outputs, the
        metric space and the weights of the others stay, bit for bit. The model is then the one that `create_model`
        makes with all these widths, and its state_dict loads into that one, no longer into the one before.

        For after training: parameters of norms are new, larger objects, so that an optimizer or a task that was made
        before would go on with the old ones. All other parameters are the same objects.

        Args:
            width: In (0, 1), another than the model has, in its first six digits too.

        Raises:
            ValueError: It is not such a number, or gives the same network as another width does after rounding, or the
                model is no longer as it was made (pruned blocks, adapters).
            RuntimeError: If another thread is running the model.
        """
        add_width(self, width)

    def refresh(self) -> None:
        """Drops the evaluation copies of narrow weights, see `sfsc_timm.slim.frozen`.

        Only needed after writing weights *in evaluation mode* in a way that torch does not count: through `.data` or
        `.numpy()`, by a fused optimizer or a collective operation. `train()` and `eval()` do it, too.
        """
        for guard in guards(self):
            guard.drop()

    def train(self, mode: bool = True) -> 'Slimmable':
        """As in torch; also drops the evaluation copies."""
        self.refresh()
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> 'Slimmable':
        self.refresh()  # torch may swap tensors in place, which it does with those only that nobody else looks at
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.refresh()
        super()._load_from_state_dict(*args, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to logits (B, num_classes), or the embedding (B, embed_dim) with num_classes=0."""
        if self.training and not torch.compiler.is_compiling():
            warn_if_alone(self, self.widths, self.width)
        with frozen(self):
            return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to the feature map (B, num_features, H', W')."""
        with frozen(self):
            return super().forward_features(x)  # type: ignore[misc]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Feature map (B, num_features, H, W) to logits (B, num_classes), or the embedding (B, embed_dim).

        Args:
            x: Output of `forward_features`.
            pre_logits: Return the embedding. It is not normalised.
        """
        with frozen(self, worth=False):
            x = super().forward_head(x, pre_logits=True)  # type: ignore[misc]
            if self._pooled:
                x = self.neck(x)
            return x if pre_logits else self.fc(x)

    def forward_intermediates(self, *args: Any, **kwargs: Any) -> Any:
        """As timm's."""
        with frozen(self):
            return super().forward_intermediates(*args, **kwargs)  # type: ignore[misc]

    def embed(self, x: Tensor, dim: int | None = None) -> Tensor:
        """Images (B, C, H, W) to the embedding (B, embed_dim) at the active width, whatever `num_classes` is.

        It is what comes before the classifier, not normalised; without a neck (embed_dim=0) the pooled features.

        Args:
            x: Images.
            dim: One of `embed_dims`: give its first `dim` numbers alone (None: all).
        """
        with frozen(self):
            return leading(self.forward_head(self.forward_features(x), pre_logits=True), self.embed_dims, dim)

    def get_classifier(self, name_only: bool = False) -> nn.Module | str:
        """The shared classifier, or its name."""
        return 'fc' if name_only else self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None, **kwargs: Any) -> None:
        """Replaces the classifier, and the pooling if `global_pool` is given ('' for none: an unpooled feature map).

        Args:
            num_classes: Classes of the new classifier; 0 for none.
            global_pool: Type of pooling (None: as it is).
            **kwargs: The family's own.

        Raises:
            ValueError: If pooling is to be off but classes are asked for.
        """
        if global_pool is not None or kwargs:
            if global_pool == '' and num_classes:
                raise ValueError(
                    f"global_pool='' needs num_classes=0, got {num_classes}: a classifier sees pooled features"
                )
            factor = self._pool_factor()
            super().reset_classifier(0, global_pool, **kwargs)  # type: ignore[misc]
            if global_pool is not None:
                self._family_args = {**self._family_args, 'global_pool': global_pool}
            self._resize_neck(self._pool_factor() / factor)
        self._add_classifier(num_classes)

    def prune_intermediate_layers(self, *args: Any, **kwargs: Any) -> list[int]:
        """As timm's; the neck goes with the head."""
        before = self.num_features
        kept: list[int] = super().prune_intermediate_layers(*args, **kwargs)  # type: ignore[misc]
        if self.num_features != before:
            by_width = self.feature_info[max(kept)].get('num_chs_by_width', ())
            for attributes, channels in zip(self._slim.attributes, by_width, strict=False):
                attributes['num_features'] = channels
        if not self._pooled:
            self.neck, self.embed_dim, self.embed_dims = nn.Identity(), 0, ()
            self.head_hidden_size = self.num_features
        return kept

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recomputes each block in backward, at the width and with the slices of its own forward."""
        for name, block in self.named_modules():
            if re.fullmatch(self.block_pattern, name):
                checkpointed(block, enable)

    def init_weights(self, *args: Any, **kwargs: Any) -> None:
        """As timm's, at every width, so that each width's normalisation is reset, too."""
        for width in self.widths:
            with self.at_width(width):
                super().init_weights(*args, **kwargs)  # type: ignore[misc]

    def extract(
        self, width: float | None = None, head: bool = False, plain: bool = False, dim: int | None = None
    ) -> nn.Module:
        """Independent dense model of one width, see `sfsc_timm.models.extract`."""
        return extract(self, width, head=head, plain=plain, dim=dim)

    def __prepare_scriptable__(self) -> nn.Module:
        """`torch.jit.script` compiles the active width, as a dense model."""
        return scriptable(self)

    def _record_feature_info(self, twins: Sequence[Any]) -> None:
        for i, entry in enumerate(self.feature_info):
            entry['num_chs_by_width'] = tuple(m.feature_info[i]['num_chs'] for m in (*twins, self))
