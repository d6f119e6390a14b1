"""Small members of each family, timm's own narrow models built apart from ours, and the comparison they must pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.models.efficientnet import _gen_efficientnet
from timm.models.mobilenetv3 import _gen_mobilenet_v3, _gen_mobilenet_v4
from torch import Tensor, nn

import sfsc_timm  # noqa: F401  registers the models

WIDTHS = (0.25, 0.5, 0.75, 1.0)


def assert_close_to(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    """Asserts max|a-b| <= tolerance * max|b|, and that there is something to compare."""
    assert actual.shape == expected.shape
    largest = expected.abs().max().item()
    assert largest > 0
    error = (actual - expected).abs().max().item()
    assert error <= tolerance * largest, f'max|a-b| = {error:.3g} for max|b| = {largest:.3g}'


def assert_far_from(actual: Tensor, other: Tensor) -> None:
    """Asserts that two results are not the same by accident."""
    assert (actual - other).abs().max() > 1e-3 * other.abs().max()


def rounded(channels: int, width: float) -> int:
    """The documented rule: the nearest multiple of 8, or the next one up if that loses more than 10 %."""
    if width == 1.0:
        return channels
    exact = channels * width
    nearest = max(8, int(exact / 8 + 0.5) * 8)
    return min(channels, nearest + 8 if nearest < 0.9 * exact else nearest)


def _resnet(name: str, stem: int, **kwargs: Any) -> Callable[[float], nn.Module]:
    """Timm's narrow ResNet; the plain stem, which timm fixes at 64 channels, is put in by hand."""

    def build(width: float) -> nn.Module:
        channels = tuple(rounded(c, width) for c in kwargs.get('channels', (64, 128, 256, 512)))
        args = {**kwargs, 'channels': channels, 'num_classes': 0}
        if name.endswith('d'):
            return timm.create_model(name, **args, stem_width=rounded(2 * stem, width) // 2)
        model: Any = timm.create_model(name, **args)
        narrow = rounded(stem, width)
        first, outputs = model.layer1[0], channels[0] * type(model.layer1[0]).expansion
        model.conv1 = nn.Conv2d(3, narrow, 7, stride=2, padding=3, bias=False)
        model.bn1 = nn.BatchNorm2d(narrow)
        conv = first.conv1
        first.conv1 = nn.Conv2d(narrow, conv.out_channels, conv.kernel_size, padding=conv.padding, bias=False)
        shortcut = nn.Sequential(nn.Conv2d(narrow, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        first.downsample = shortcut if narrow != outputs else None
        return model

    return build


def _convnext(name: str, dims: tuple[int, ...], **kwargs: Any) -> Callable[[float], nn.Module]:
    return lambda width: timm.create_model(name, dims=tuple(rounded(c, width) for c in dims), num_classes=0, **kwargs)


def _efficientnet(channel_multiplier: float = 1.0, **kwargs: Any) -> Callable[[float], nn.Module]:
    return lambda width: _gen_efficientnet(
        'efficientnet_b0', channel_multiplier=channel_multiplier * width, num_classes=0, **kwargs
    )


def _mobilenet(name: str, **kwargs: Any) -> Callable[[float], nn.Module]:
    """Timm's narrow MobileNet; the final convolution, which timm fixes, is put in by hand."""
    generate = _gen_mobilenet_v4 if name.startswith('mobilenetv4') else _gen_mobilenet_v3

    def build(width: float) -> nn.Module:
        args = {**kwargs, 'channel_multiplier': kwargs.get('channel_multiplier', 1.0) * width}
        model: Any = generate(name, **args, num_classes=0)
        channels, bias = rounded(model.conv_head.out_channels, width), model.conv_head.bias is not None
        model.conv_head = nn.Conv2d(model.conv_head.in_channels, channels, 1, bias=bias)
        if hasattr(model.norm_head, 'weight'):
            model.norm_head = type(model.norm_head)(channels, act_layer=nn.ReLU)
        return model

    return build


def _transformer(name: str, num_heads: int, head_size: int, **kwargs: Any) -> Callable[[float], nn.Module]:
    """Timm's narrow transformer, by its own arguments."""

    def build(width: float) -> nn.Module:
        heads = max(1, int(num_heads * width + 0.5))
        sizes = {'num_heads': heads, 'embed_dim': heads * head_size}
        return timm.create_model(name, **{**kwargs, **sizes}, num_classes=0)

    return build


_TWINS: dict[tuple[int, tuple[float, ...]], list[Any]] = {}


@dataclass(frozen=True)
class Member:
    """A model of the zoo with its arguments, and how timm alone builds it narrow (without a classifier)."""

    name: str
    narrow: Callable[[float], nn.Module]
    kwargs: dict[str, Any] = field(default_factory=dict)

    @property
    def plain_name(self) -> str:
        return self.name.removeprefix('sfsc_')

    def twins(self, widths: Sequence[float] = WIDTHS) -> list[Any]:
        """The narrow models of all widths in evaluation; made once, so give them a state before using them."""
        key = (id(self), tuple(widths))
        if key not in _TWINS:
            _TWINS[key] = [self.narrow(width) for width in widths]
        return [twin.float().eval() for twin in _TWINS[key]]

    def create(self, num_classes: int = 10, **kwargs: Any) -> Any:
        """The slimmable model in evaluation mode, with every norm, scale and bias away from its initial value."""
        return randomised(timm.create_model(self.name, num_classes=num_classes, **{**self.kwargs, **kwargs})).eval()


_SMALL = {'channels': (16, 32, 64, 128), 'layers': (1, 1, 1, 1)}
_CONVNEXT = {'depths': (1, 1, 2, 1)}
_EFFICIENTNET = {'channel_multiplier': 0.5, 'depth_multiplier': 0.5}

RESNET = Member('sfsc_resnet18d', _resnet('resnet18d', 8, **_SMALL), {**_SMALL, 'stem_width': 8})
CONVNEXT = Member(
    'sfsc_convnext_atto',
    _convnext('convnext_atto', (16, 32, 64, 96), **_CONVNEXT),
    {**_CONVNEXT, 'dims': (16, 32, 64, 96)},
)
EFFICIENTNET = Member('sfsc_efficientnet_b0', _efficientnet(**_EFFICIENTNET), _EFFICIENTNET)
_HALF = {'channel_multiplier': 0.5}
_HALF_SHALLOW = {**_HALF, 'depth_multiplier': 0.1}  # no block repeated
MOBILENET = Member('sfsc_mobilenetv3_small_100', _mobilenet('mobilenetv3_small_100', **_HALF_SHALLOW), _HALF_SHALLOW)
_TINY = {'num_heads': 4, 'head_size': 8, 'depth': 3, 'patch_size': 8, 'img_size': 32}
VIT = Member('sfsc_vit_tiny_patch16_224', _transformer('vit_tiny_patch16_224', **_TINY), _TINY)


def _variant(name: str, **kwargs: Any) -> Member:
    """A small transformer with something that the small ViT does not have."""
    args = {**_TINY, 'depth': 2, **kwargs}
    return Member(f'sfsc_{name}', _transformer(name, **args), args)


VIT_AVERAGE = _variant('vit_tiny_patch16_224', global_pool='avg', class_token=False)
VIT_MAP = _variant('vit_tiny_patch16_224', global_pool='map')
DINOV2 = _variant('vit_small_patch14_dinov2')
DINOV3 = _variant('vit_small_patch16_dinov3', global_pool='token')
MOBILENETV4 = Member('sfsc_mobilenetv4_conv_small', _mobilenet('mobilenetv4_conv_small', **_HALF), _HALF)
CONVOLUTIONAL = (RESNET, CONVNEXT, EFFICIENTNET)  # whose features are maps (B, C, H, W) of images of any size
FAMILIES = (*CONVOLUTIONAL, VIT)

# Each with something that the small ones do not have.
RESNET_DEFAULT = Member('sfsc_resnet18d', _resnet('resnet18d', 32))
IDENTITY_SHORTCUT = Member('sfsc_resnet18', _resnet('resnet18', 64))
BOTTLENECK = Member('sfsc_resnet50', _resnet('resnet50', 64))
_BOTTLENECKS = {'channels': (64, 64, 64, 64), 'layers': (1, 1, 1, 1)}
SMALL_BOTTLENECK = Member('sfsc_resnet50', _resnet('resnet50', 64, **_BOTTLENECKS), _BOTTLENECKS)
CONVNEXT_DEFAULT = Member('sfsc_convnext_atto', _convnext('convnext_atto', (40, 80, 160, 320)))
EFFICIENTNET_DEFAULT = Member('sfsc_efficientnet_b0', _efficientnet())
SKIPS_DIFFER = Member(  # at 0.25 and 0.5 two stages have as many outputs as inputs, so that a shortcut appears
    'sfsc_efficientnet_b0',
    _efficientnet(channel_multiplier=0.25, depth_multiplier=0.1),
    {'channel_multiplier': 0.25, 'depth_multiplier': 0.1},
)


def name_of(member: Member) -> str:
    """Name of a test."""
    return member.name


def randomised(model: nn.Module) -> nn.Module:
    """Moves norms, layer scales and biases away from values (0, 1, 1e-6) that would hide an error."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith('running_var'):
                tensor.uniform_(0.5, 1.5)
            elif name.endswith(('bias', 'running_mean')):
                tensor.normal_(std=0.1)
            elif tensor.is_floating_point() and tensor.ndim == 1:
                tensor.uniform_(0.5, 1.5)
    return model


def images(batch: int = 2, size: int = 32, channels: int = 3) -> Tensor:
    """A batch of noise."""
    return torch.randn(batch, channels, size, size)


def channels_of(features: Tensor) -> int:
    """Channels of a feature map (B, C, H, W), or of tokens (B, N, C)."""
    return features.shape[1 if features.ndim == 4 else -1]


def embed(model: Any, x: Tensor) -> Tensor:
    """Embedding (B, embed_dim) by a slimmable model with a classifier."""
    with torch.no_grad():
        return model.forward_head(model.forward_features(x), pre_logits=True)


def predict(model: nn.Module, x: Tensor) -> Tensor:
    """Output in evaluation, without gradients."""
    with torch.no_grad():
        return model(x)


_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)


def slice_by_hand(stored: dict[str, Tensor], twins: Sequence[nn.Module], index: int) -> dict[str, Tensor]:
    """State of twin number `index`, cut out of the full state_dict without our code.

    Args:
        stored: state_dict of the slimmable model.
        twins: The narrow models of all widths, ascending.
        index: Which one's state to make.
    """
    states = [twin.state_dict() for twin in twins]
    norms = {name for name, module in twins[index].named_modules() if isinstance(module, _NORMS)}
    sliced = {}
    for key, own in states[index].items():
        if key.rpartition('.')[0] in norms:
            start = sum(state[key].numel() for state in states[:index])
            sliced[key] = stored[key][start : start + own.numel()].reshape(own.shape)
        else:
            sliced[key] = leading(stored[key], own, 3 if '.qkv.' in key else 2 if '.kv.' in key else 1)
    return sliced


def leading(tensor: Tensor, small: Tensor, parts: int = 1) -> Tensor:
    """The leading corner of the size of another tensor, of each of the parts that the first dimension packs."""
    corner = (slice(0, len(small) // parts), *(slice(0, n) for n in small.shape[1:])) if small.ndim else ()
    return torch.cat([part[corner] for part in tensor.chunk(parts)]) if parts > 1 else tensor[corner]


def neck_by_hand(state: dict[str, Tensor], features: Tensor, index: int) -> Tensor:
    """The neck of width number `index` in evaluation."""
    weight = state['neck.proj.weight'][:, : features.shape[1]]
    if 'neck.proj.bias' in state:
        return features @ weight.T + state['neck.proj.bias']
    size = len(weight)
    names = ('running_mean', 'running_var', 'weight', 'bias')
    norm = [state[f'neck.bn.{name}'][size * index : size * (index + 1)] for name in names]
    return F.batch_norm(features @ weight.T, *norm)


def logits_by_hand(member: Member, model: Any, x: Tensor) -> Tensor:
    """What a slimmable model with a linear classifier has to give at its active width, by timm's narrow model.

    Nothing but the state_dict is asked of `model`, so nothing that it may have kept can get into the answer.
    """
    state, parameter = model.state_dict(), next(model.parameters())
    twins = [twin.to(parameter.dtype) for twin in member.twins(model.widths)]
    index = model.widths.index(model.width)
    twins[index].load_state_dict(slice_by_hand(state, twins, index))
    embedding = neck_by_hand(state, predict(twins[index], x), index)
    return embedding @ state['fc.weight'].T + state['fc.bias']
