"""Old names go on working, or fail with the new one in the message."""

from __future__ import annotations

from importlib import import_module

import pytest


@pytest.mark.parametrize('old, new', [
    ('layers.slim', 'slim.slim'),
    ('layers.sliced_leaves', 'slim.sliced_leaves'),
    ('layers.create_neck', 'models.create_neck'),
    ('hub.load_checkpoint_model', 'checkpoints.load_checkpoint_model'),
    ('hub.save_widths', 'checkpoints.save_widths'),
    ('hub.compatibility_id', 'checkpoints.compatibility_id'),
    ('hub.export_onnx', 'export.export_onnx'),
    ('evaluation.Gallery', 'retrieval.Gallery'),
    ('evaluation.search', 'retrieval.search'),
    ('evaluation.FaissIndex', 'retrieval.FaissIndex'),
    ('train.main', 'cli.main.main'),
    ('run.main', 'timm_script.main'),
])  # fmt: skip
def test_goes_on_working(old: str, new: str) -> None:
    found = []
    for path in (old, new):
        module, _, name = path.rpartition('.')
        found.append(getattr(import_module(f'sfsc_timm.{module}'), name))
    assert found[0] is found[1]


@pytest.mark.parametrize('old, hint', [
    ('layers.prepared', 'the engine does by itself'),
    ('data.eval_transform', r'Preprocessing\(.*\)\.transform\(\)'),
    ('gradients.SharedSlices', r'sfsc_timm\.slim\.SharedCut'),
    ('gradients.PrivateSegments', r'sfsc_timm\.slim\.PrivateCut'),
])  # fmt: skip
def test_says_what_takes_its_place(old: str, hint: str) -> None:
    module, _, name = old.rpartition('.')
    with pytest.raises(AttributeError, match=rf'no attribute {name!r}: it is .*{hint}.* now'):
        getattr(import_module(f'sfsc_timm.{module}'), name)
