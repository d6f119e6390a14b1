"""A dry run refuses the names that the Hub would refuse, before it reads anything."""

from __future__ import annotations

import pytest

from sfsc_timm.cli.main import main
from sfsc_timm.hub.plan import check_repo


@pytest.mark.parametrize('repo', ['user/name', 'u/n', 'a-b/c.d_e', 'user/' + 'n' * 80])
def test_good_names(repo: str) -> None:
    check_repo(repo)


@pytest.mark.parametrize(
    'repo',
    [
        'name', 'user/', '/name', 'a/b/c', 'user/na me', 'user/nä', 'hf-hub:user/name', 'user/name@main',
        'a/b..c', 'a/b--c', 'a/-b', 'a/b-', 'a/.b', 'a/b.', 'a..b/c', '-a/b', 'a/b.git', 'user/' + 'n' * 97,
    ],
)  # fmt: skip
def test_names_that_the_hub_refuses(repo: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match='repo must be'):
        check_repo(repo)
    assert main(['publish', 'nowhere', f'--repo={repo}', '--dry-run']) == 1
    error = capsys.readouterr().err
    assert 'repo must be' in error
    assert error.count('\n') == 1
