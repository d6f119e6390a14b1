"""Parameters and multiply-adds of every width: the exact sub-model and what plain timm makes of it.

Plain timm cannot be as narrow everywhere (the stem of the plain ResNets is 64 wide), so `extract(w, plain=True)` pads
with zeros; this shows what the padding costs. One image at --img-size.

    python -m benchmarks.speed.cost sfsc_resnet50 sfsc_resnet50d --output benchmarks/results/cost.json
"""

from __future__ import annotations

import argparse
from typing import Any

import timm

import sfsc_timm
from benchmarks.machine import save_json
from sfsc_timm.evaluation import model_cost, si_number


def measure(name: str, side: int) -> list[dict[str, Any]]:
    """One row per width."""
    model: Any = timm.create_model(name, num_classes=0).eval()
    size = (3, side, side)
    rows = []
    for width in model.widths:
        exact = model_cost(model.extract(width), size)
        row = {'model': name, 'width': width, 'params': exact.params, 'macs': exact.macs, 'size': size}
        try:
            plain = model_cost(model.extract(width, plain=True), size)
            row.update(plain_params=plain.params, plain_macs=plain.macs)
        except ValueError:
            row.update(plain_params=None, plain_macs=None)
        rows.append(row)
    return rows


def main() -> None:
    """Prints a Markdown table and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('models', nargs='*', default=['sfsc_resnet50', 'sfsc_resnet50d'], help='models of the zoo')
    parser.add_argument('--img-size', type=int, default=224, help='pixels (default: 224)')
    parser.add_argument('--output', default='', help='JSON file for the results')
    args = parser.parse_args()
    print(f'sfsc_timm {sfsc_timm.__version__}')
    print('| model | width | parameters | MACs | parameters, plain timm | MACs, plain timm |')
    print('|-|-|-|-|-|-|')
    rows = [row for name in args.models for row in measure(name, args.img_size)]
    for row in rows:
        numbers = [row[key] for key in ('params', 'macs', 'plain_params', 'plain_macs')]
        cells = ' | '.join('not possible' if n is None else si_number(n) for n in numbers)
        print(f'| {row["model"]} | {row["width"]:g} | {cells} |')
    if args.output:
        save_json(args.output, {'rows': rows})


if __name__ == '__main__':
    main()
