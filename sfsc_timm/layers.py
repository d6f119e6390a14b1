"""Old name of `sfsc_timm.slim`, and of the heads in `sfsc_timm.models`."""

from ._moved import moved

__getattr__ = moved(
    __name__,
    {
        'sfsc_timm.slim': (
            *('NORMS', 'Cut', 'PrivateCut', 'SharedCut', 'SlimState', 'densify', 'slim', 'slim_state'),
            *('slim_states', 'sliced_leaves'),
        ),
        'sfsc_timm.models': ('CosineLinear', 'classify_fixed', 'create_neck', 'fold_neck'),
    },
    {'prepared': 'what the engine does by itself'},
)
