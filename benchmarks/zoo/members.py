"""What every member of the zoo passes: torch.compile, ONNX, plain timm, timm's narrow networks.

    python -m benchmarks.zoo.members
    python -m benchmarks.zoo.members 'sfsc_vit_*' --widths ends  # the narrowest width and the full one alone
    python -m benchmarks.zoo.members --report  # only draws the table of what is there, with that of suite.py

Each member is made with its own arguments, small images, and norms and biases that are not at their initial values.

- compile: graphs after two rounds over the widths; `fullgraph` allows no part in eager mode. They are traced by Dynamo
  and run as they were traced: what is counted are graphs, not kernels.
- ONNX: by how much ONNX Runtime differs from the width in PyTorch, of the largest value.
- plain: the widths that `timm.create_model` makes without this package, and whose output is the same.
- narrow: by how much a width differs from the network that timm's own code builds so narrow.

A finished member is kept at once in the result, so that a run that was cut goes on; `--again` measures anew.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

import sfsc_timm  # noqa: F401  registers the members
from benchmarks.machine import describe_machine, save_json
from sfsc_timm.checkpoints.submodel import relative_error
from sfsc_timm.export.onnx import export_onnx, run_onnx

RESULTS = Path(__file__).parents[1] / 'results' / 'zoo'
OUTPUT, SUITE = RESULTS / 'members.json', RESULTS / 'suite.json'
TOLERANCE = 1e-5  # of the largest value, between two ways to compute the same in PyTorch
PIXELS = 64

Member = dict[str, Any]


def create(name: str, pixels: int) -> tuple[Any, Tensor]:
    """The member in evaluation, away from its initial values, with a batch of noise (2, 3, pixels, pixels)."""
    torch.manual_seed(0)
    sized = {'img_size': pixels} if name.startswith('sfsc_vit_') else {}
    model: Any = timm.create_model(name, num_classes=0, **sized)
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if key.endswith('running_var'):
                tensor.uniform_(0.5, 1.5)
            elif tensor.is_floating_point() and tensor.ndim == 1:
                tensor.add_(0.1 * torch.randn_like(tensor))
    return model.eval(), torch.randn(2, 3, pixels, pixels)


def embeddings(model: Any, x: Tensor, widths: Sequence[float]) -> dict[float, Tensor]:
    """What each width makes of the images, (B, D)."""
    found = {}
    for width in widths:
        with torch.no_grad(), model.at_width(width):
            found[width] = model(x)
    return found


def count_graphs(model: Any, x: Tensor, expected: dict[float, Tensor]) -> int:
    """Graphs that torch.compile makes in two rounds over the widths, each as good as eager mode."""
    graphs = []

    def backend(graph: torch.fx.GraphModule, _inputs: list[Any]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    for _ in range(2):
        for width, embedding in expected.items():
            model.set_width(width)
            with torch.no_grad():
                check(relative_error(compiled(x), embedding), f'compiled at width {width:g}')
    model.set_width(1.0)
    torch._dynamo.reset()
    return len(graphs)


def in_onnx(model: Any, x: Tensor, width: float, expected: Tensor) -> float:
    """By how much a width in ONNX Runtime differs from it in PyTorch; `export_onnx` checks it, too."""
    with tempfile.TemporaryDirectory() as folder:
        input_size = (x.shape[1], x.shape[2], x.shape[3])
        path = export_onnx(model.extract(width), Path(folder) / 'model.onnx', input_size)
        return relative_error(run_onnx(path, [x]), expected)


def in_plain_timm(model: Any, x: Tensor, width: float, expected: Tensor) -> bool:
    """Whether plain timm makes a width, with the same output."""
    try:
        plain = model.extract(width, plain=True)
    except ValueError as error:
        if 'plain timm cannot express' not in str(error):
            raise
        return False
    with torch.no_grad():
        check(relative_error(plain(x), expected), f'plain timm at width {width:g}')
    return True


def from_timms_narrow(model: Any, x: Tensor, width: float, expected: Tensor) -> float:
    """By how much a width differs from the neck on the network that timm's code builds so narrow."""
    dense: Any = model.extract(width)
    neck: nn.Module = dense.get_classifier()
    dense.reset_classifier(0)
    narrow = type(model).dense(width, num_classes=0, **model._family_args).eval()
    narrow.load_state_dict(dense.state_dict())
    with torch.no_grad():
        return check(relative_error(neck(narrow(x)), expected), f"timm's network of width {width:g}")


def check(error: float, what: str) -> float:
    """Raises where two ways to compute the same do not."""
    if not error <= TOLERANCE:
        raise ValueError(f'{what} gives another output, by {error:.1g} of the largest value')
    return error


def measure(name: str, chosen: str) -> Member:
    """What a member passes; what it does not is under `failed`, with the message."""
    pixels = 56 if 'patch14' in name else PIXELS
    model, x = create(name, pixels)
    widths = model.widths if chosen == 'all' else (model.widths[0], 1.0)
    found: Member = {'widths': model.widths, 'pixels': pixels, 'parameters': sum(p.numel() for p in model.parameters())}
    failed: dict[str, str] = {}

    def attempt(what: str, call: Callable[..., Any], *args: Any) -> Any:
        try:
            return call(model, x, *args)
        except Exception as error:  # whatever a backend raises is what is to be told
            failed[what] = f'{type(error).__name__}: {error}'.splitlines()[0]
            return None

    every, some = embeddings(model, x, model.widths), embeddings(model, x, widths)
    for key, call in (('plain', in_plain_timm), ('narrow', from_timms_narrow)):
        found[key] = {f'{w:g}': attempt(f'{key} {w:g}', call, w, every[w]) for w in model.widths}
    found['compile'] = {'widths': widths, 'graphs': attempt('compile', count_graphs, some)}
    found['onnx'] = {f'{w:g}': attempt(f'onnx {w:g}', in_onnx, w, some[w]) for w in widths}
    return {**found, 'failed': failed}


def read_members(path: Path) -> dict[str, Member]:
    """What is kept of members, by name."""
    return dict(json.loads(path.read_text())['members']) if path.is_file() else {}


def missing(patterns: Sequence[str], found: Mapping[str, Any], again: bool) -> list[str]:
    """Members that patterns name, in their order, of which nothing is found yet (`again`: all of them)."""
    names = dict.fromkeys(name for pattern in patterns for name in timm.list_models(pattern))
    return [name for name in names if again or name not in found]


def markdown(members: dict[str, Member], suite: dict[str, Member]) -> str:
    """One row for each member of which something is known."""
    lines = ["| member | timm's tests | one graph at | ONNX | plain timm | timm's narrow network |", '|-' * 6 + '|']
    for name in sorted({*members, *suite}):
        cells = [_suite(suite.get(name)), *(_passes(members[name]) if name in members else ['not run'] * 4)]
        lines.append(f'| `{name.removeprefix("sfsc_")}` | {" | ".join(cells)} |')
    return '\n'.join(lines) + '\n'


def _passes(found: Member) -> list[str]:
    widths, compiled = found['widths'], found['compile']
    one = compiled['graphs'] == len(compiled['widths'])
    return [
        _widths(compiled['widths'], widths) if one else f'no: {compiled["graphs"]} graphs',
        _widths([w for w, error in found['onnx'].items() if error is not None], widths),
        _widths([w for w, loads in found['plain'].items() if loads], widths),
        _widths([w for w, error in found['narrow'].items() if error is not None], widths),
    ]


def _widths(passed: Sequence[Any], widths: Sequence[float]) -> str:
    names = [f'{float(width):g}' for width in passed]
    return 'each width' if len(names) == len(widths) else ', '.join(names) or 'none'


def _suite(found: dict[str, Any] | None) -> str:
    if found is None:
        return 'not run'
    wrong, skipped = found.get('failure', 0) + found.get('error', 0), found.get('skipped', 0)
    counts = {'left out': skipped, 'fail': wrong}
    others = [f', {count} {outcome}' for outcome, count in counts.items() if count]
    return ''.join([f'{found.get("passed", 0)} pass', *others]) if found.keys() > {'others'} else 'found none'


def main() -> None:
    """Measures what is missing, then draws the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('members', nargs='*', default=['sfsc_*'], help='names or patterns, in this order (all)')
    parser.add_argument(
        '--widths', choices=('all', 'ends'), default='all', help='where to compile and to export: all, or the two ends'
    )
    parser.add_argument('--again', action='store_true', help='also what is there')
    parser.add_argument('--output', type=Path, default=OUTPUT, help='the result (%(default)s)')
    parser.add_argument('--report', action='store_true', help='measure nothing, draw what is there')
    args = parser.parse_args()
    members = read_members(args.output)
    print(describe_machine())
    for name in [] if args.report else missing(args.members, members, args.again):
        members[name] = measure(name, args.widths)
        save_json(args.output, {'tolerance': TOLERANCE, 'members': dict(sorted(members.items()))})
        print(name, members[name]['failed'] or 'passes', flush=True)
    print(markdown(members, read_members(SUITE)))


if __name__ == '__main__':
    main()
