"""What a family of timm's models tells of itself to become slimmable."""

# Annotations are not postponed here, as in `_slimmable`.

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from ._widths import DEFAULT_WIDTHS, check_widths

__all__ = ['Family']


class Family:
    """Mixin of the declarations: `dense` is a family's own, the others have values that fit many.

    Attributes:
        classifier_name: Path of the classifier in timm's plain model.
        block_pattern: Regular expression of the modules that gradient checkpointing recomputes.
        packed: Which tensors pack equal parts, see `sfsc_timm.slim.slim`.
        neck_norm: Whether the neck has a BatchNorm1d by default.
    """

    classifier_name: ClassVar[str] = 'fc'
    block_pattern: ClassVar[str] = ''
    packed: ClassVar[dict[str, int]] = {}
    neck_norm: ClassVar[bool] = True

    @staticmethod
    def dense(width: float, **kwargs: Any) -> nn.Module:
        """Builds timm's plain model of the family at `width`, with the full model's structure."""
        raise NotImplementedError

    @staticmethod
    def plain_args(width: float, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Arguments by which plain timm makes the sub-model of `width`.

        Args:
            width: The sub-model's.
            kwargs: Arguments of the full model.

        Raises:
            ValueError: If plain timm cannot make it.
        """
        raise NotImplementedError

    @staticmethod
    def adapt_to_plain(state: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG004
        """Adds to the sub-model's `state` what plain timm wants besides; sizes are padded later."""
        return state

    @staticmethod
    def as_timm_loads(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:  # noqa: ARG004
        """What timm itself makes of a checkpoint of the family before it loads it into its own model."""
        return state

    @classmethod
    def choose_widths(
        cls,
        widths: Sequence[float] | None,
        full_width: float,  # noqa: ARG003
        kwargs: Mapping[str, Any],  # noqa: ARG003
    ) -> tuple[float, ...]:
        """Checks the widths that were asked for, ascending; None: the default of a member with these arguments."""
        return check_widths(DEFAULT_WIDTHS if widths is None else widths)
