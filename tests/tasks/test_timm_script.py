"""python -m sfsc_timm.timm_script script.py ..."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import timm
import torch

from sfsc_timm.timm_script import main


def test_the_script_sees_its_own_arguments_and_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / 'beside.py').write_text("WORD = 'found'\n")
    script = tmp_path / 'script.py'
    script.write_text(
        'import sys, timm, beside\n'
        "print(__name__, sys.argv[1:], beside.WORD, 'sfsc_resnet18d' in timm.list_models('sfsc_*'))\n"
    )
    before = sys.argv, sys.path[:]
    main([str(script), '--model', 'sfsc_resnet18d', '-b', '2'])
    assert capsys.readouterr().out == "__main__ ['--model', 'sfsc_resnet18d', '-b', '2'] found True\n"
    assert (sys.argv, sys.path) == before


def test_a_missing_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path / 'validate.py')])
    assert 'validate.py' in capsys.readouterr().err


def test_a_script_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    script = tmp_path / 'script.py'
    script.write_text("raise RuntimeError('of its own')\n")
    before = sys.argv, sys.path[:]
    with pytest.raises(RuntimeError, match='of its own'):
        main([str(script)])
    assert (sys.argv, sys.path) == before


@pytest.mark.skipif('SFSC_TIMM_CHECKOUT' not in os.environ, reason='SFSC_TIMM_CHECKOUT does not name a timm checkout')
def test_validate_py(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    for label in 'ab':
        (tmp_path / 'images' / label).mkdir(parents=True)
        Image.new('RGB', (36, 36)).save(tmp_path / 'images' / label / '0.png')
    sizes = {'channels': (16, 24, 32, 32), 'layers': (1, 1, 1, 1), 'stem_width': 8}
    model = timm.create_model('sfsc_resnet18d', num_classes=2, **sizes)
    torch.save(model.state_dict(), tmp_path / 'model.pth')
    flags = '--model sfsc_resnet18d --num-classes 2 --input-size 3 32 32 -b 2 -j 0 --device cpu --no-prefetcher'
    flags += f' --checkpoint {tmp_path}/model.pth'
    kwargs = ['--model-kwargs', 'width=0.5', 'channels=(16,24,32,32)', 'layers=(1,1,1,1)', 'stem_width=8']
    script = Path(os.environ['SFSC_TIMM_CHECKOUT']) / 'validate.py'
    main([str(script), '--data-dir', str(tmp_path / 'images'), *flags.split(), *kwargs])
    assert '"top1"' in capsys.readouterr().out
