"""What slimmable vision transformers share: a width has fewer heads, each of its full size.

So does HydraViT (NeurIPS 2024, https://arxiv.org/abs/2409.17978): the embedding is heads x head size, and attention is
scaled as at full width. A narrow width then is exactly timm's own narrow transformer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar

from ..slim import SharedCut
from ._slimmable import Slimmable
from ._widths import DEFAULT_WIDTHS, check_widths

__all__ = ['SlimmableTransformer', 'heads_at']


def heads_at(num_heads: int, width: float) -> int:
    """Heads at a width: rounded half up, at least 1.

    Args:
        num_heads: Heads at width 1.0.
        width: In (0, 1].
    """
    return max(1, int(num_heads * width + 0.5))


def _heads(kwargs: Mapping[str, Any]) -> int:
    """Heads at width 1.0; timm's default is 12."""
    return int(kwargs.get('num_heads', 12))


class SlimmableTransformer(Slimmable):
    """Mixin in front of a timm transformer whose arguments are `num_heads` and `head_size`, not `embed_dim`.

    Its neck has no batch statistics, as nothing else in the model has.
    """

    classifier_name = 'head'
    block_pattern = r'blocks\.\d+'
    packed: ClassVar[dict[str, int]] = {r'attn\.qkv\.(weight|bias)$': 3, r'attn_pool\.kv\.(weight|bias)$': 2}
    neck_norm = False
    norm_argument: ClassVar[str]  # of timm's class: whether the last norm follows the pooling

    patch_embed: Any
    fc_norm: Any

    @classmethod
    def choose_widths(
        cls, widths: Sequence[float] | None, full_width: float, kwargs: Mapping[str, Any]
    ) -> tuple[float, ...]:
        """Widths with different numbers of heads.

        Args:
            widths: What was asked for; None: the numbers of heads nearest to those of `DEFAULT_WIDTHS`, as fractions in
                six digits (1/3, 2/3 and 1 of three heads).
            full_width: What the widths are fractions of.
            kwargs: The family's own arguments.

        Raises:
            ValueError: If two widths are the same network.
        """
        heads = heads_at(_heads(kwargs), full_width)
        if widths is None:
            counts = sorted({heads_at(heads, width) for width in DEFAULT_WIDTHS})
            return tuple(float(f'{count / heads:g}') for count in counts)
        checked = check_widths(widths)
        for narrow, wide in pairwise(checked):
            count = heads_at(_heads(kwargs), narrow * full_width)
            if count == heads_at(_heads(kwargs), wide * full_width):
                raise ValueError(
                    f'widths must have different numbers of heads, got {narrow:g} and {wide:g}, which both have '
                    f'{count} of {heads}; leave one of them out, or leave out widths for '
                    f'{cls.choose_widths(None, full_width, kwargs)}'
                )
        return checked

    @staticmethod
    def sizes(width: float, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Timm's arguments at a width: `kwargs` with `embed_dim` for `head_size`.

        Args:
            width: In (0, 1].
            kwargs: The family's own arguments.
        """
        heads = heads_at(_heads(kwargs), width)
        others = {name: value for name, value in kwargs.items() if name != 'head_size'}
        return {**others, 'num_heads': heads, 'embed_dim': heads * kwargs.get('head_size', 64)}

    @staticmethod
    def plain_args(width: float, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Arguments by which plain timm makes the sub-model."""
        return SlimmableTransformer.sizes(width, kwargs)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None, **kwargs: Any) -> None:
        """As `Slimmable.reset_classifier`; the last norm stays before or after the pooling, where it was made."""
        super().reset_classifier(num_classes, global_pool, **kwargs)
        if global_pool is not None:
            after = bool(list(self.fc_norm.parameters()))
            self._family_args = {**self._family_args, type(self).norm_argument: after}

    def set_input_size(self, img_size: Any = None, patch_size: Any = None) -> None:
        """As timm's, for all widths: the position embedding is resampled.

        Args:
            img_size: Height and width, or both in one number (None: as they are).
            patch_size: The model's own.

        Raises:
            ValueError: If `patch_size` is another.
        """
        own = self.patch_embed.patch_size
        if patch_size not in (None, own, own[0], list(own)):
            raise ValueError(
                f'patch_size must be the {own} that the model was made with, got {patch_size}: timm makes a layer of '
                'one width for another; give patch_size to timm.create_model'
            )
        with self.at_width(1.0):
            super().set_input_size(img_size=img_size)  # type: ignore[misc]
            state = self._slim
            if 'pos_embed' in state.cuts:
                tokens = self._parameters['pos_embed'].shape[1]  # type: ignore[union-attr]
                shapes = tuple((1, tokens, shape[-1]) for shape in state.cuts['pos_embed'].shapes)
                state.cuts = {**state.cuts, 'pos_embed': SharedCut(shapes)}  # a copy of the model may share the old
        self._family_args = {**self._family_args, 'img_size': tuple(self.patch_embed.img_size)}
        self.refresh()
