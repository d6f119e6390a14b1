"""Loading checkpoints: every layout gives the model that was saved, or a clear error."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from helpers.checkpoints import ARGS, DATA_CONFIG, save_training, save_whole, tiny
from safetensors.torch import load_file, save_file

from sfsc_timm.checkpoints import DenseWidths, compatibility_id, load_checkpoint_model, save_width, save_widths
from sfsc_timm.models import Slimmable

IMAGES = torch.rand(2, 3, 32, 32)


def embed(model, width):
    with torch.no_grad(), model.at_width(width):
        return model.forward_head(model.forward_features(IMAGES), pre_logits=True)


def assert_same(checkpoint, model):
    for width in checkpoint.widths:
        torch.testing.assert_close(embed(checkpoint.model, width), embed(model, width), rtol=1e-4, atol=1e-5)
    assert not any(module.training for module in checkpoint.model.modules())


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """The model and a folder with it in every layout."""
    root = tmp_path_factory.mktemp('saved')
    model = tiny()
    save_whole(model, root / 'whole')
    save_widths(model, root / 'widths', data_config=DATA_CONFIG)
    save_training(model, root / 'last.pth.tar')
    torch.save(model.state_dict(), root / 'state.pth')
    save_file(model.state_dict(), root / 'state.safetensors')
    return model, root


@pytest.mark.parametrize('name', ['whole', 'whole/model.safetensors', 'last.pth.tar', 'state.pth', 'state.safetensors'])
def test_whole_models_embed_at_every_width(saved, name):
    model, root = saved
    describe = {'model': 'sfsc_resnet18d', 'model_kwargs': {**ARGS, 'num_classes': 5}} if 'state' in name else {}
    checkpoint = load_checkpoint_model(root / name, **describe)
    assert isinstance(checkpoint.model, Slimmable)
    assert checkpoint.widths == (0.25, 0.5, 0.75, 1.0)
    assert_same(checkpoint, model)
    assert checkpoint.compatibility == compatibility_id(model)


def test_single_widths_and_their_folder(saved):
    model, root = saved
    for width in model.widths:
        checkpoint = load_checkpoint_model(f'local-dir:{root}/widths/w{width:g}')
        assert checkpoint.widths == (width,)
        assert_same(checkpoint, model)
        assert checkpoint.compatibility == compatibility_id(model)
    together = load_checkpoint_model(root / 'widths', width=0.5)
    assert together.widths == model.widths
    assert isinstance(together.model, DenseWidths)
    assert together.model.width == 0.5
    assert together.model(IMAGES).shape == (2, 16)
    assert_same(together, model)


def test_preprocessing_is_the_checkpoints_unless_it_is_given(saved):
    _, root = saved
    whole = load_checkpoint_model(root / 'whole').preprocessing
    assert (whole.input_size, whole.mean, whole.std, whole.crop_pct) == tuple(DATA_CONFIG.values())
    trained = load_checkpoint_model(root / 'last.pth.tar').preprocessing
    assert trained.input_size == (3, 32, 32)
    assert (trained.mean, trained.std, trained.interpolation) == ((0.5,) * 3, (0.25,) * 3, 'bilinear')
    for changes, size in (({'img_size': 64}, (3, 64, 64)), ({'input_size': (3, 64, 32)}, (3, 64, 32))):
        changed = load_checkpoint_model(
            root / 'last.pth.tar', data_config={**changes, 'mean': None, 'crop_mode': 'squash'}
        ).preprocessing
        assert changed.input_size == size
        assert changed.mean == trained.mean
        assert changed.crop_mode == 'squash'


def test_averaged_weights_of_a_training_run(tmp_path):
    plain, averaged = tiny(0), tiny(1)
    wrapped = {f'module.{name}': tensor for name, tensor in averaged.state_dict().items()}
    path = save_training(plain, tmp_path / 'last.pth.tar', state_dict_ema=wrapped)
    assert_same(load_checkpoint_model(path), plain)
    assert_same(load_checkpoint_model(path, use_ema=True), averaged)
    with pytest.raises(ValueError, match='use_ema'):
        load_checkpoint_model(save_training(plain, path), use_ema=True)


def test_timm_model_embeds_by_its_pooled_features(tmp_path):
    plain = timm.create_model('resnet18d', num_classes=7, channels=(8, 8, 8, 8), stem_width=4).eval()
    torch.save(plain.state_dict(), tmp_path / 'plain.pth')
    kwargs = {'num_classes': 7, 'channels': (8, 8, 8, 8), 'stem_width': 4}
    checkpoint = load_checkpoint_model(tmp_path / 'plain.pth', model='resnet18d', model_kwargs=kwargs)
    assert checkpoint.widths == (1.0,)
    with torch.no_grad():
        expected = plain.forward_head(plain.forward_features(IMAGES), pre_logits=True)
    assert torch.equal(embed(checkpoint.model, 1.0), expected)


def test_hub_repositories(saved, monkeypatch):
    model, root = saved
    asked = []

    def snapshot_download(name, revision, allow_patterns):
        asked.append((name, revision))
        return str(root / 'whole')

    monkeypatch.setattr(huggingface_hub, 'snapshot_download', snapshot_download)
    assert_same(load_checkpoint_model('hf-hub:user/name@v1'), model)
    load_checkpoint_model('hf-hub:user/name')
    assert asked == [('user/name', 'v1'), ('user/name', None)]

    def offline(*args, **kwargs):
        raise OSError('no network')

    monkeypatch.setattr(huggingface_hub, 'snapshot_download', offline)
    with pytest.raises(ValueError, match=r'hf-hub:user/name.*no network'):
        load_checkpoint_model('hf-hub:user/name')


def test_compatibility_id_is_of_the_metric_space(saved, tmp_path):
    model, _ = saved
    same, other = tiny(), tiny(1)
    same.reset_classifier(3)
    same.set_width(0.25)
    assert compatibility_id(same) == compatibility_id(model) != compatibility_id(other)
    folder = save_width(other, 0.5, tmp_path / 'w0.5', compatibility='chosen')
    assert json.loads((folder / 'config.json').read_text())['sfsc']['compatibility'] == 'chosen'
    assert load_checkpoint_model(folder).compatibility == 'chosen'


def test_unknown_width(saved):
    _, root = saved
    for name in ('whole', 'widths/w0.25'):
        with pytest.raises(ValueError, match=r'width must be one of .*0\.25'):
            load_checkpoint_model(root / name, width=0.3)


def damaged(root: Path, copy: Path) -> Path:
    shutil.copytree(root / 'whole', copy)
    return copy / 'model.safetensors'


@pytest.mark.parametrize('keep', [0, 4, 1000, -8])
def test_truncated_files(saved, tmp_path, keep):
    _, root = saved
    weights = damaged(root, tmp_path / 'copy')
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(ValueError, match='no whole safetensors file'):
        load_checkpoint_model(weights.parent)
    cut = tmp_path / 'cut.pth.tar'
    cut.write_bytes((root / 'last.pth.tar').read_bytes()[:keep])
    with pytest.raises(ValueError, match='no whole checkpoint'):
        load_checkpoint_model(cut)


@pytest.mark.parametrize('change, message', [
    (lambda s: s.pop('neck.proj.weight'), '1 missing: neck.proj.weight'),
    (lambda s: s.update(extra=torch.zeros(1)), '1 unknown: extra'),
    (lambda s: s.update({'neck.proj.weight': torch.zeros(3, 64)}), r'neck.proj.weight \(3, 64\) for \(16, 64\)'),
    (lambda s: s['conv1.0.weight'].view(-1)[0].fill_(float('nan')), '1 not finite: conv1.0.weight'),
])  # fmt: skip
def test_weights_that_do_not_fit(saved, tmp_path, change, message):
    _, root = saved
    weights = damaged(root, tmp_path / 'copy')
    state = load_file(weights)
    change(state)
    save_file(state, weights)
    with pytest.raises(ValueError, match=f'does not fit the model sfsc_resnet18d: .*{message}'):
        load_checkpoint_model(weights.parent)


class Payload:
    def __reduce__(self):
        return (Path.touch, (Path('executed'),))


class Function:
    def __reduce__(self):
        return (print, ('executed',))


def test_nothing_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_training(tiny(), tmp_path / 'evil.pth.tar', payload=Payload())
    with pytest.raises(ValueError, match='could run code'):
        load_checkpoint_model('evil.pth.tar')
    (tmp_path / 'raw.pth').write_bytes(pickle.dumps({'state_dict': Payload()}, protocol=2))
    with pytest.raises(ValueError, match=r'could run code|no whole checkpoint'):
        load_checkpoint_model('raw.pth')
    assert not Path('executed').exists()


@pytest.mark.parametrize('form', ['protocol 0', 'protocol 2', 'protocol 4', 'by hand', 'torch before 1.6'])
def test_hostile_pickles_of_every_form_are_told_by_what_they_name(tmp_path, monkeypatch, form):
    monkeypatch.chdir(tmp_path)
    content, file, named = {'state_dict': {'a': Payload(), 'b': [1] * 3}}, tmp_path / 'evil.pth', r'\w+\.(getattr|Path)'
    if form == 'by hand':
        file.write_bytes(b"cos\nsystem\n(S'touch executed'\ntR.")
        named = r'os\.system'
    elif form == 'torch before 1.6':
        torch.save({'a': Function()}, file, _use_new_zipfile_serialization=False)
        named = 'print'
    else:
        file.write_bytes(pickle.dumps(content, protocol=int(form[-1])))
    with pytest.raises(ValueError, match=named) as caught:
        load_checkpoint_model('evil.pth')
    message = str(caught.value)
    assert "'evil.pth' holds Python objects that could run code" in message
    assert 'save the state_dict alone' in message
    assert 'cut off' not in message
    assert 'weights_only' not in message
    assert not Path('executed').exists()


def test_torchs_advice_to_run_code_is_not_passed_on(tmp_path):
    (tmp_path / 'words.pth').write_bytes(b'hello world, this is no pickle at all')
    with pytest.raises(ValueError, match=r"words\.pth' is no whole checkpoint") as caught:
        load_checkpoint_model(tmp_path / 'words.pth')
    assert 'weights_only' not in str(caught.value)


@pytest.mark.parametrize('source, error, message', [
    ('none.pth.tar', FileNotFoundError, 'no such file or folder'),
    ('some/none', FileNotFoundError, 'no such file or folder'),
    ('nonesuch', ValueError, 'no model of timm'),
    ('sfsc_resnet34d', ValueError, 'start training from'),
    ('.', FileNotFoundError, 'holds no checkpoint'),
    ('unnamed.pth', ValueError, 'which model'),
    ('list.pth', ValueError, 'holds a list'),
    ('words.pth', ValueError, r"no state_dict; found the entries \['a'\]"),
    ('odd/model.safetensors', ValueError, "config of timm's"),
    ('odd', ValueError, "config of timm's"),
    ('empty', FileNotFoundError, 'none of model.safetensors'),
    ('bare', ValueError, 'timm cannot make'),
])  # fmt: skip
def test_other_errors(tmp_path, monkeypatch, source, error, message):
    monkeypatch.chdir(tmp_path)
    torch.save({'a': torch.zeros(1)}, 'unnamed.pth')
    torch.save([1], 'list.pth')
    torch.save({'a': 'b'}, 'words.pth')
    if source != '.':
        for folder, config in (
            ('odd', '{"pretrained_cfg": {}}'),
            ('empty', '{}'),
            ('bare', '{"architecture": "nonesuch"}'),
        ):
            Path(folder).mkdir()
            Path(folder, 'config.json').write_text(config)
            if folder != 'empty':
                save_file({'a': torch.zeros(1)}, Path(folder, 'model.safetensors'))
    with pytest.raises(error, match=message):
        load_checkpoint_model(source)


def test_a_checkpoint_path_in_a_config_that_is_not_there_is_named(tmp_path):
    save_whole(tiny(), tmp_path / 'whole')
    file = tmp_path / 'whole' / 'config.json'
    config = json.loads(file.read_text())
    config['model_args']['checkpoint_path'] = '/nope'
    file.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"whole.*'checkpoint_path': '/nope'.*no file at checkpoint_path; leave"):
        load_checkpoint_model(tmp_path / 'whole')


def test_width_folders_of_two_models(tmp_path):
    save_width(tiny(0), 0.25, tmp_path / 'w0.25')
    save_width(tiny(1), 1.0, tmp_path / 'w1')
    with pytest.raises(ValueError, match='not the widths of one model'):
        load_checkpoint_model(tmp_path)
