"""Old name of `sfsc_timm.timm_train`; `--device-modules sfsc_timm sfsc_timm.train_task` does the same."""

from .timm_train import *  # noqa: F403
