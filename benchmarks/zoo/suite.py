"""What timm's own tests of its models say of every member of the zoo.

    python -m benchmarks.zoo.suite timm-1.0.31/tests/test_models.py
    python -m benchmarks.zoo.suite timm-1.0.31/tests/test_models.py sfsc_resnet101 --again

The tests are in the distribution of timm's source, of the version that is installed: `pip download --no-deps
--no-binary :all: timm==1.0.31`. tests/timm_plugin.py shows them our models. Those of pretrained weights are left out.
A finished member is kept at once in the result, so that a run that was cut goes on; `--again` runs it anew.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.machine import save_json
from benchmarks.zoo.members import SUITE, missing, read_members

ROOT = Path(__file__).parents[2]


def timm_suite(models: str, suite: Path, *options: str) -> tuple[list[str], dict[str, str]]:
    """The command, and its environment, that runs timm's tests of members.

    Args:
        models: Names or patterns, separated by commas.
        suite: timm's tests/test_models.py, absolute.
        *options: More of pytest.
    """
    chosen = ['-q', '-p', 'timm_plugin', '-p', 'no:cacheprovider', '-k', 'sfsc_ and not pretrained', '--tb=short']
    command = [sys.executable, '-m', 'pytest', *chosen, *options, f'--rootdir={suite.parent}', str(suite)]
    paths = os.pathsep.join([str(ROOT / 'tests'), str(ROOT), os.environ.get('PYTHONPATH', '')])
    return command, {**os.environ, 'SFSC_TIMM_MODELS': models, 'PYTHONPATH': paths}


def run_suite(name: str, suite: Path) -> dict[str, Any]:
    """Outcomes of timm's tests of a member: how many of each, and the messages of all that did not pass."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / 'report.xml'
        command, environment = timm_suite(name, suite, f'--junitxml={report}')
        subprocess.run(command, env=environment, cwd=folder, check=False, stdout=subprocess.DEVNULL)
        if not report.is_file():
            raise RuntimeError(f"timm's tests of {name} ended without a report; run them by hand: {' '.join(command)}")
        cases = list(ET.parse(report).iter('testcase'))
    counts: Counter[str] = Counter()
    messages = {}
    for case in cases:
        other = next((part for part in case if part.tag in ('failure', 'error', 'skipped')), None)
        counts['passed' if other is None else other.tag] += 1
        if other is not None:
            messages[case.attrib['name']] = other.attrib.get('message', '').splitlines()[:1]
    return {**counts, 'others': messages}


def main() -> None:
    """Runs what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('suite', type=Path, help="timm's tests/test_models.py")
    parser.add_argument('members', nargs='*', default=['sfsc_*'], help='names or patterns, in this order (all)')
    parser.add_argument('--again', action='store_true', help='also what is there')
    parser.add_argument('--output', type=Path, default=SUITE, help='the result (%(default)s)')
    args = parser.parse_args()
    found = read_members(args.output)
    for name in missing(args.members, found, args.again):
        found[name] = run_suite(name, args.suite.resolve())
        save_json(args.output, {'members': dict(sorted(found.items()))})
        print(name, found[name], flush=True)


if __name__ == '__main__':
    main()
