"""Checkpoints that ship with the package; the top-level `weights/` folder, installed as `sfsc_timm.weights`."""
