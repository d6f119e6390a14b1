"""Publishing by the real client of the Hub against one on the loopback interface, with interruptions, and loading."""

from __future__ import annotations

import json
import subprocess
import venv
from collections.abc import Iterator
from copy import deepcopy
from importlib import metadata
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from helpers import loopback, xet_storage
from helpers.checkpoints import save_training, tiny
from helpers.clients import Clients
from helpers.loopback_state import Hub

REPO = 'user/name'
BRANCHES = ['w0.25', 'w0.5', 'w0.75', 'w1', 'main']
IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
PUBLISH = """
import json, sfsc_timm
done = sfsc_timm.publish({source!r}, {repo!r}, **{options!r})
print(json.dumps({{'commits': done.commits, 'id': done.plan.compatibility}}))
"""
# What a consumer does who has timm alone.
CONSUME = """
import sys, json
sys.modules['sfsc_timm'] = None  # not importable here
import timm, torch
images = torch.load({images!r})
found = {{}}
for branch in {branches!r}:
    model = timm.create_model(f'hf-hub:{repo}@{{branch}}', pretrained=True).eval()
    with torch.no_grad():
        found[branch] = model(images).tolist()
print(json.dumps(found))
"""


def publish(source: Path, repo: str = REPO, **options: Any) -> str:
    return PUBLISH.format(source=str(source), repo=repo, options=options)


@pytest.fixture(scope='module')
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two training runs of one architecture, and images; their costs are measured, so that publishing is quick."""
    from sfsc_timm.hub import prepare

    root = tmp_path_factory.mktemp('sources')
    torch.set_num_threads(1)  # this comes before the fixture that does so for every test
    for seed in (0, 1):
        run = root / f'run{seed}'
        run.mkdir()
        save_training(tiny(seed), run / 'last.pth.tar')
        prepare(run, REPO, root / f'files{seed}')
    torch.save(IMAGES, root / 'images.pt')
    return root


@pytest.fixture
def hub() -> Iterator[Hub]:
    with loopback.running() as running:
        yield running


@pytest.fixture(scope='module')
def published(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Hub:
    """A Hub that was closed after the first run had been published."""
    with loopback.running() as hub:
        Clients(hub, tmp_path_factory.mktemp('first')).run(publish(sources / 'run0'))
    return hub


@pytest.fixture
def filled(hub: Hub, published: Hub) -> Hub:
    """A Hub on which the first run has been published."""
    hub.repos, hub.blobs = deepcopy(published.repos), dict(published.blobs)
    return hub


@pytest.fixture
def clients(hub: Hub, tmp_path: Path) -> Clients:
    return Clients(hub, tmp_path)


def identity(hub: Hub, branch: str, repo: str = REPO) -> str:
    return json.loads(hub.file(repo, branch, 'config.json'))['sfsc']['compatibility']


def expected(width: float) -> torch.Tensor:
    """The slimmable model's own embedding."""
    model = tiny()
    with torch.no_grad(), model.at_width(width):
        return model.forward_head(model.forward_features(IMAGES), pre_logits=True)


def assert_equal(actual: Any, width: float) -> None:
    wanted = expected(width)
    assert (torch.tensor(actual) - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_publish_again_and_load_with_timm_alone(hub: Hub, clients: Clients, sources: Path, tmp_path: Path) -> None:
    first = clients.run(publish(sources / 'run0'))
    assert list(first['commits']) == BRANCHES
    assert all(first['commits'].values())
    assert {identity(hub, branch) for branch in BRANCHES} == {first['id']}
    order = [path.split('/')[-1] for method, path, _ in hub.requests if method == 'POST' and '/commit/' in path]
    assert order == BRANCHES  # widths first, main last
    assert all(len(hub.history(REPO, branch)) == 2 for branch in BRANCHES)
    assert not hub.repos[REPO].private
    assert 'w0.25' in hub.file(REPO, 'main', 'README.md').decode()
    assert b'hf-hub:user/name@w0.25' in hub.file(REPO, 'w0.25', 'README.md')

    # Again: nothing has changed.
    sent = len(hub.blobs)
    command = ['publish', str(sources / 'run0'), '--repo', REPO]
    second = clients.start(f'from sfsc_timm.cli.main import main; raise SystemExit(main({command!r}))')
    second.process.join()
    assert second.process.exitcode == 0, second.error
    assert 'Nothing had changed, nothing was written' in second.output
    assert all(len(hub.history(REPO, branch)) == 2 for branch in BRANCHES)
    assert len(hub.blobs) == sent

    # A fresh cache, no token, no plugin; then the same without network.
    cache = {'HF_HOME': str(tmp_path / 'cache'), 'HF_TOKEN': None}
    consume = CONSUME.format(images=str(sources / 'images.pt'), branches=BRANCHES[:-1], repo=REPO)
    found = clients.run(consume, **cache)
    before = len(hub.requests)
    offline = clients.run(consume, **cache, HF_HUB_OFFLINE='1')
    assert len(hub.requests) == before
    for branch, width in zip(BRANCHES[:-1], (0.25, 0.5, 0.75, 1.0), strict=True):
        assert_equal(found[branch], width)
        assert offline[branch] == found[branch]


LOAD = """
import json, timm, torch, sfsc_timm
from sfsc_timm.hub import load_checkpoint_model
images, found = torch.load({images!r}), {{}}
with torch.no_grad():
    model = timm.create_model('hf-hub:user/name', pretrained=True).eval()
    for width in (0.25, 1.0):
        with model.at_width(width):
            found[f'whole {{width}}'] = model(images).tolist()
        found[f'width {{width}}'] = sfsc_timm.load_width('user/name', width)(images).tolist()
    checkpoint = load_checkpoint_model('hf-hub:user/name@w0.5')
    found['checkpoint 0.5'] = checkpoint.model(images).tolist()
assert checkpoint.widths == (0.5,)
print(json.dumps(found))
"""


def test_the_plugin_loads_everything_and_refuses_what_would_be_wrong(
    filled: Hub, clients: Clients, sources: Path, tmp_path: Path
) -> None:
    cache = {'HF_HOME': str(tmp_path / 'cache'), 'HF_TOKEN': None}
    load = LOAD.format(images=str(sources / 'images.pt'))
    found = clients.run(load, **cache)
    for name, value in found.items():
        assert_equal(value, float(name.split()[1]))
    assert clients.run(load, **cache, HF_HUB_OFFLINE='1') == found
    assert 'w0.75' not in str(sorted((tmp_path / 'cache').rglob('*')))  # what nobody asked for was not fetched

    refusals = """
    import json, sfsc_timm
    found = []
    for arguments in (('user/name', 0.3), ('user/none', 0.5), ('user/name@w0.5', 0.5), ('a/b/c', 0.5)):
        try:
            sfsc_timm.load_width(*arguments)
        except ValueError as error:
            found.append(str(error))
    try:
        sfsc_timm.load_width('user/name', 0.5, num_classes=0)
    except ValueError as error:
        found.append(str(error))
    print(json.dumps(found))
    """
    unknown, none, revision, wrong, classes = clients.run(refusals, **cache)
    assert 'width must be one of (0.25, 0.5, 0.75, 1.0) for hf-hub:user/name, got 0.3' in unknown
    assert "'hf-hub:user/none' is not on the Hugging Face Hub, or private" in none
    assert 'must not name a revision' in revision
    assert 'expected user/name' in wrong
    assert 'num_classes must be left out, got 0: the embedding is made by the layer' in classes
    uncached = clients.fail("import sfsc_timm; sfsc_timm.load_width('user/name', 0.75)", **cache, HF_HUB_OFFLINE='1')
    assert uncached.startswith('ConnectionError:')


# Where a second publish, of other weights, gets killed: the request, and whether it took effect before.
POINTS = {
    'before a branch has anything': ('POST', '/commit/w0.25', False),
    'in the upload of weights': ('PUT', '/lfs/', False),
    'after a commit that nobody heard of': ('POST', '/commit/w0.5', True),
    'before main': ('POST', '/commit/main', False),
}


@pytest.mark.parametrize('point', POINTS.values(), ids=list(POINTS))
def test_kill_and_retry(filled: Hub, clients: Clients, sources: Path, point: tuple[str, str, bool]) -> None:
    hub, old = filled, identity(filled, 'main')
    method, path, after = point
    hold = hub.hold(method, path, after=after)
    clients.start(publish(sources / 'run1')).kill_at(hold)
    # Every branch is whole, the old or the new one; main still is the old one, and load_width tells them apart.
    ids = {branch: identity(hub, branch) for branch in BRANCHES}
    assert ids['main'] == old
    mixed = [branch for branch in BRANCHES if ids[branch] != old]
    assert mixed == {'/commit/w0.25': [], '/lfs/': [], '/commit/w0.5': BRANCHES[:2], '/commit/main': BRANCHES[:4]}[path]
    if mixed:
        refused = clients.fail("import sfsc_timm; sfsc_timm.load_width('user/name', 0.25)")
        assert 'publishing it is under way or was interrupted' in refused

    again = clients.run(publish(sources / 'run1'))
    assert {identity(hub, branch) for branch in BRANCHES} == {again['id']}
    assert again['id'] != old
    assert [branch for branch, commit in again['commits'].items() if commit] == BRANCHES[len(mixed) :]
    assert all(len(hub.history(REPO, branch)) == 3 for branch in BRANCHES)  # nothing twice
    for branch in BRANCHES:
        planned = sources / 'files1' / branch / 'model.safetensors'
        assert hub.file(REPO, branch, 'model.safetensors') == planned.read_bytes()


def test_kill_of_the_first_publish(hub: Hub, clients: Clients, sources: Path) -> None:
    """A branch that was made but not filled does not pass for a width."""
    hold = hub.hold('POST', '/commit/w0.5')
    clients.start(publish(sources / 'run0')).kill_at(hold)
    assert sorted(hub.repos[REPO].branches) == ['main', 'w0.25', 'w0.5']
    assert hub.history(REPO, 'w0.5') == ['initial commit']
    refused = clients.fail("import sfsc_timm; sfsc_timm.load_width('user/name', 0.5)")
    assert 'lacks a file' in refused
    again = clients.run(publish(sources / 'run0'))
    assert [branch for branch, commit in again['commits'].items() if commit] == BRANCHES[1:]


def test_private(hub: Hub, clients: Clients, sources: Path) -> None:
    clients.run(publish(sources / 'run0', private=True))
    assert hub.repos[REPO].private
    load = "import sfsc_timm; sfsc_timm.load_width('user/name', 0.5)"
    clients.run(load)
    assert 'private and not visible to you' in clients.fail(load, HF_TOKEN=None)
    hub.repos[REPO].private = False
    assert 'exists and is public' in clients.fail(publish(sources / 'run0', private=True))


REFUSED = """
import json, os, sfsc_timm
found = []
right, tries = 'hf_loopback', ((None, 'user/name'), ('hf_wrong', 'user/name'))
for token, repo in (*tries, (right, 'other/name'), (right, 'name')):
    os.environ.pop('HF_TOKEN', None)
    if token:
        os.environ['HF_TOKEN'] = token
    try:
        sfsc_timm.publish({source!r}, repo)
    except Exception as error:
        found.append(type(error).__name__ + ': ' + str(error))
print(json.dumps(found))
"""


def test_who_may_not(hub: Hub, clients: Clients, sources: Path) -> None:
    anonymous, wrong, other, unnamed = clients.run(REFUSED.format(source=str(sources / 'run0')))
    assert anonymous.startswith("PermissionError: 'publishing' needs a token of the Hugging Face Hub: log in")
    assert wrong.startswith("PermissionError: 'publishing': the token is not valid")
    assert other.startswith("PermissionError: 'hf-hub:other/name': the token may not do this")
    assert unnamed.startswith('ValueError: repo must be user/name')
    assert not hub.repos


@pytest.mark.parametrize(
    'environment, message',
    [({'HF_ENDPOINT': 'http://127.0.0.1:9'}, 'cannot be reached'), ({'HF_HUB_OFFLINE': '1'}, 'HF_HUB_OFFLINE is set')],
)
def test_no_network(clients: Clients, sources: Path, environment: dict[str, str | None], message: str) -> None:
    last = clients.fail(publish(sources / 'run0'), **environment)
    assert last.startswith('ConnectionError: ')
    assert message in last


def test_someone_elses_commit_in_between(filled: Hub, clients: Clients, sources: Path) -> None:
    """A branch changes from what was seen, or not at all."""
    hub, repo, hold = filled, filled.repos[REPO], filled.hold('PUT', '/lfs/')
    client = clients.start(publish(sources / 'run1'))
    assert hold.reached.wait(60)
    hub.commit(repo, 'w0.25', repo.commits[repo.branches['w0.25']].files, 'someone else')
    hold.released.set()
    assert 'changed by someone else at the same time; run this again' in client.failure()
    assert hub.history(REPO, 'w0.25')[0] == 'someone else'
    clients.run(publish(sources / 'run1'))
    assert hub.history(REPO, 'w0.25')[:2] == ['Publish width 0.25', 'someone else']


def test_files_of_others_stay_and_stale_ones_go(filled: Hub, clients: Clients, sources: Path) -> None:
    hub = filled
    repo = hub.repos[REPO]
    files = dict(repo.commits[repo.branches['w0.5']].files)
    hub.commit(repo, 'w0.5', {**files, 'notes.txt': files['README.md'], 'model.onnx': files['README.md']}, 'by hand')
    done = clients.run(publish(sources / 'run0'))
    assert [branch for branch, commit in done['commits'].items() if commit] == ['w0.5']
    left = repo.commits[repo.branches['w0.5']].files
    assert 'notes.txt' in left
    assert 'model.onnx' not in left  # of other weights, for all that anyone knows


VENV = """
import importlib.util, json, os, sys
os.environ['HF_ENDPOINT'], os.environ['HF_HOME'] = sys.argv[1:3]
assert importlib.util.find_spec('sfsc_timm') is None
import timm, torch
model = timm.create_model('hf-hub:user/name@w0.25', pretrained=True).eval()
assert timm.data.resolve_model_data_config(model)['input_size'] == (3, 32, 32)
with torch.no_grad():
    print(json.dumps(model(torch.load(sys.argv[3])).tolist()))
"""


def test_a_virtual_environment_with_timm_and_without_the_plugin(filled: Hub, sources: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / 'venv')
    packages = next((tmp_path / 'venv').rglob('site-packages'))
    for site in {Path(module.__file__ or '').parents[1] for module in (timm, torch, huggingface_hub)}:
        for entry in site.iterdir():  # all that is installed here, but for the plugin
            if 'sfsc' not in entry.name and entry.suffix != '.pth' and not (packages / entry.name).exists():
                (packages / entry.name).symlink_to(entry)
    arguments = [filled.url, str(tmp_path / 'cache'), str(sources / 'images.pt')]
    done = subprocess.run(
        [str(tmp_path / 'venv' / 'bin' / 'python'), '-c', VENV, *arguments],
        capture_output=True, text=True, check=False, cwd=tmp_path, env={'OMP_NUM_THREADS': '1'},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert_equal(json.loads(done.stdout), 0.25)


def test_through_xet(sources: Path, tmp_path: Path) -> None:
    """The client's default storage: chunks of a file instead of the file."""
    try:
        version = metadata.version('hf-xet')
    except metadata.PackageNotFoundError:
        pytest.skip('hf-xet is not installed')
    if not version.startswith(xet_storage.TRIED_WITH):
        pytest.skip(f'hf-xet {version}: its simulated storage was tried with {xet_storage.TRIED_WITH}*')
    (tmp_path / 'storage').mkdir()
    with loopback.running(xet=tmp_path / 'storage') as hub:
        clients = Clients(hub, tmp_path)
        done = clients.run(publish(sources / 'run0'), HF_HUB_DISABLE_XET=None)
        assert all(done['commits'].values())
        assert hub.counts('PUT', '/lfs/') == 0
        assert hub.counts('GET', '/xet-write-token/') > 0
        consume = CONSUME.format(images=str(sources / 'images.pt'), branches=['w0.25', 'w1'], repo=REPO)
        found = clients.run(consume, HF_HUB_DISABLE_XET=None, HF_TOKEN=None)
        assert hub.counts('GET', '/lfs/') == 0
        assert_equal(found['w0.25'], 0.25)
        assert_equal(found['w1'], 1.0)
        again = clients.run(publish(sources / 'run0'), HF_HUB_DISABLE_XET=None)
        assert set(again['commits'].values()) == {None}
