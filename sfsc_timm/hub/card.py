"""Model cards, written from what was measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import timm
import yaml

from ..checkpoints.save import width_name
from ..evaluation import markdown_table, paper_name, si_number, update_gain_table
from .card_content import CardContent, PublishedWidth
from .card_sizes import sizes_section
from .quoting import fenced, inline, one_line

__all__ = ['model_card', 'shipped_card', 'width_card']

_TERMS = {
    'emoji': 'drawings under Apache-2.0, MIT, CC-BY-4.0 and CC-BY-SA-4.0, each named in the LICENSES.md that building '
    'the data set writes',
    'glyphs': 'drawn from the fonts that ship with matplotlib',
}
_CITATION = """\
```bibtex
@inproceedings{sfsc2023,
  title     = {Switchable Representation Learning Framework with Self-compatibility},
  author    = {Wu, Shengsen and Bai, Yan and Lou, Yihang and Linghu, Xiongkun and He, Jianzhong and Duan, Ling-Yu},
  booktitle = {CVPR},
  year      = {2023}
}
```"""


def model_card(content: CardContent) -> str:
    """Card of the repository (README.md of `main`): metadata that the Hub understands, then Markdown."""
    name = content.repo.split('/')[-1]
    sections = [
        f'# {name}',
        f'A slimmable `{content.architecture}` whose {len(content.widths)} widths embed into one metric space: a query '
        'embedded by a small width can search a gallery embedded by a big one. Trained with '
        '[SFSC](https://arxiv.org/abs/2206.08289) by the timm plugin `sfsc-timm`.',
        _loading(content),
        _accuracy(content),
        _costs(content.widths),
        sizes_section(content),
        _compatibility(content),
        _training(content),
        _use(content),
        '## Citation\n\n' + _CITATION,
    ]
    return _metadata(content, results=True) + '\n\n'.join(section for section in sections if section) + '\n'


def shipped_card(content: CardContent, name: str) -> str:
    """Card of a checkpoint that ships with the package.

    Args:
        content: What it is written from.
        name: Architecture and tag.
    """
    size = 'x'.join(map(str, content.widths[0].cost.input_size))
    names = timm.list_pretrained(f'{content.architecture}.*')
    warm = ' or '.join(f'`{other}`' for other in names if timm.get_pretrained_cfg(other).hf_hub_id)
    load = f"""\
## Use

```python
import timm
import sfsc_timm

model = timm.create_model('{content.architecture}', pretrained=True).eval()  # {name}
with model.at_width({content.widths[0].width:g}):
    query = model(images)  # (B, {content.embed_dim}), images of {size}
```

The bare call gives the embedding (num_classes=0). For other domains start from {warm} and train all widths.
{_preprocessing(content)}"""
    about = f'All widths of `{content.architecture}` in half precision; compatibility id `{content.compatibility}`.'
    sections = [f'# {name}', about, load, _accuracy(content, picture=False), _costs(content.widths, branches=False)]
    return '\n\n'.join([*sections, _training(content), _use(content), '## Citation\n\n' + _CITATION]) + '\n'


def width_card(content: CardContent, part: PublishedWidth) -> str:
    """Card of one width's branch."""
    text = f"""\
# {content.repo.split('/')[-1]}, width {part.width:g}

Width {part.width:g} ({paper_name(part.width)}) of [{content.repo}](https://huggingface.co/{content.repo}), where the
card with all measurements is: {si_number(part.cost.params)} parameters, {si_number(part.cost.macs)} MACs. Its
embeddings are comparable with those of every other width there (compatibility id `{content.compatibility}`).

```python
import timm
{'' if part.plain else _PLUGIN_IMPORT}{_create(content.repo, part)}
embedding = model(images)  # (B, {content.embed_dim})
```

{_warning([part])}
"""
    ways = _ways_out([part])
    return _metadata(content, results=False) + text + (f'\n{ways}\n' if ways else '')


_PLUGIN_IMPORT = 'import sfsc_timm  # timm alone has no model this narrow\n'


def _metadata(content: CardContent, results: bool) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    found = []
    if results and content.matrix is not None and content.of_this_model:
        measured, widths = one_line(content.matrix.info.get('data', 'unnamed')), content.matrix.widths
        found = [
            EvalResult(
                task_type='image-feature-extraction',
                task_name='Image retrieval',
                dataset_type=measured,
                dataset_name=measured,
                metric_type='map',
                metric_name=f'mAP, query width {query:g}, gallery width {gallery:g}',
                metric_value=round(float(content.matrix.mAP[i, j]), 2),
            )
            for i, query in enumerate(widths)
            for j, gallery in enumerate(widths)
        ]
    tags = ['sfsc', 'sfsc-timm', 'timm', 'slimmable', 'image-retrieval', 'metric-learning', 'compatible-features']
    data = ModelCardData(
        library_name='timm',
        pipeline_tag='image-feature-extraction',
        tags=tags,
        license=content.about.license,
        datasets=[one_line(content.data)] if content.data else None,
        model_name=content.repo.split('/')[-1] if found else None,
        eval_results=found or None,
    )
    return f'---\n{data.to_yaml()}\n---\n\n'


def _loading(content: CardContent) -> str:
    plain = [part for part in content.widths if part.plain]
    lines = ['import timm']
    if plain:
        lines += ['', '# One width, as a dense model; timm is enough.']
        lines += [_create(content.repo, part) for part in plain]
        lines += [f'embedding = model(images)  # (B, {content.embed_dim}); without num_classes, see below']
    lines += ['', 'import sfsc_timm  # all widths in one model', '']
    lines += [
        _create(content.repo, part) + '  # timm alone has no model this narrow'
        for part in content.widths
        if not part.plain
    ]
    lines += [
        f"model = timm.create_model('hf-hub:{content.repo}', pretrained=True).eval()",
        f'with model.at_width({content.widths[0].width:g}):',
        f'    query = model(images)  # (B, {content.embed_dim})',
        f"small = sfsc_timm.load_width('{content.repo}', {content.widths[0].width:g})  # checked against main",
    ]
    code = '```python\n' + '\n'.join(lines) + '\n```'
    after = _preprocessing(content)
    if any(part.onnx for part in content.widths):
        after += ' Each width has a `model.onnx` too, with its preprocessing in `preprocessing.json`.'
    parts = [f'## Use\n\n{code}', _ways_out(content.widths), _warning(content.widths), after]
    return '\n\n'.join(filter(None, parts))


def _preprocessing(content: CardContent) -> str:
    steps = ', '.join(f'{key} {_shown(value)}' for key, value in content.preprocessing.to_dict().items())
    return (
        f'Preprocessing: {steps}; `timm.data.resolve_model_data_config(model)` gives it. The embedding is not '
        'normalised: compare by cosine similarity.'
    )


def _ways_out(parts: Iterable[PublishedWidth]) -> str:
    """What to do with widths that timm alone cannot make."""
    narrow = [part for part in parts if not part.plain]
    if not narrow:
        return ''
    widths = ', '.join(f'{part.width:g}' for part in narrow)
    onnx = 'run its `model.onnx`' if all(part.onnx for part in narrow) else 'export it by `sfsc-timm export`, to run it'
    return (
        f'Width {widths}: timm fixes the channels of this architecture by its name and has no model this narrow, nor '
        f"has transformers' wrapper of timm. Load it where `sfsc_timm` is imported, or {onnx} by ONNX Runtime."
    )


def _create(repo: str, part: PublishedWidth) -> str:
    return f"model = timm.create_model('hf-hub:{repo}@{width_name(part.width)}', pretrained=True).eval()"


def _warning(parts: Iterable[PublishedWidth]) -> str:
    layers = sorted({part.embedding for part in parts if part.plain})
    if not layers:
        return 'The bare call gives the embedding.'
    named = ' or '.join(f'`{layer}`' for layer in layers)
    return (
        f"**Do not pass `num_classes`.** A width's embedding is made by the layer that timm takes for the classifier "
        f'({named}, see `"sfsc"` in config.json). `num_classes=0`, which would leave it out and give features that are '
        'comparable with nothing here, fails to load; for another task, `model.reset_classifier(classes)` afterwards. '
        "In Hugging Face's transformers the `logits` of `AutoModelForImageClassification` are the embedding, and "
        '`AutoModel` leaves it out; branches that need sfsc-timm are for timm alone.'
    )


def _accuracy(content: CardContent, picture: bool = True) -> str:
    matrix = content.matrix
    if matrix is None:
        return '## Accuracy\n\nNot measured.'
    matrix = replace(matrix, names=tuple(map(inline, matrix.names)))
    of = f' on {inline(matrix.info["data"])}' if 'data' in matrix.info else ''
    note = f'{content.about.note}\n\n' if content.about.note else ''
    k = min(matrix.cmc) if matrix.cmc else None
    parts = [
        f'## Accuracy{of}',
        f'{note}Rows are query widths, columns gallery widths. ✗ marks a pair that does not beat the smaller '
        "model's own search.",
        markdown_table(matrix, k) if k is not None else '',
    ]
    if len(matrix.widths) > 1:
        parts += [
            "Update gain, the share of a bigger gallery model's accuracy that a smaller query gets: 1 for all that the "
            'bigger model is better by, 0 for nothing, below 0 where its gallery harms, `-` where it is better by less '
            'than 1 mAP.',
            update_gain_table(matrix),
        ]
    return '\n\n'.join(filter(None, [*parts, '![mAP of every pair](matrix.png)' if picture else '']))


def _costs(widths: tuple[PublishedWidth, ...], branches: bool = True) -> str:
    lines = ['## Widths', '']
    for part in widths:
        cells = {
            'width': f'{part.width:g} ({paper_name(part.width)})',
            'branch': f'`{width_name(part.width)}`',
            'architecture': f'`{part.architecture}`',
            'needs': 'timm' if part.plain else 'timm and sfsc-timm',
            'parameters': si_number(part.cost.params),
            'MACs': si_number(part.cost.macs),
            'latency': f'{part.cost.latency_ms:.2f} ms',
            'file': f'{part.size / 1e6:.1f} MB',
        }
        kept = {name: cell for name, cell in cells.items() if branches or name not in ('branch', 'needs', 'file')}
        if part is widths[0]:
            lines += ['| ' + ' | '.join(kept) + ' |', '|-' * len(kept) + '|']
        lines.append('| ' + ' | '.join(kept.values()) + ' |')
    cost = widths[0].cost
    size = 'x'.join(map(str, cost.input_size))
    after = f'Dense models of each width; one {size} image; latency on {inline(cost.machine)}, median.'
    return '\n'.join([*lines, '', after])


def _compatibility(content: CardContent) -> str:
    return (
        f'## Compatibility\n\nCompatibility id `{content.compatibility}`. Embeddings of all widths of this repository '
        'can be compared with each other, and with those of any checkpoint that declares this id in the `"sfsc"` '
        'section of its config.json. With any other checkpoint, also of the same architecture or of an earlier '
        'revision with another id, distances mean nothing: `sfsc-timm search` and `sfsc_timm.load_width` refuse them.'
    )


def _training(content: CardContent) -> str:
    lines = ['## Training', '']
    terms = content.about.data_license or _TERMS.get(content.data or '', 'see its own')
    lines.append(f'Data: {inline(content.data)} (terms: {terms}).' if content.data else 'Data: not stated.')
    command = content.about.command or content.arguments.get('command')
    if command is None and 'recipe' in content.arguments:  # a run of sfsc-timm train, whose settings are in main
        command = 'sfsc-timm train --config args.yaml'
    if command:
        lines += ['', fenced(command, 'sh')]
    if content.arguments:
        settings = {key: value for key, value in content.arguments.items() if value is not False and key != 'command'}
        text = yaml.safe_dump(settings, sort_keys=True, allow_unicode=True, width=100).strip()
        lines += ['', '<details><summary>Settings</summary>', '', fenced(text, 'yaml'), '', '</details>']
    return '\n'.join(lines)


def _use(content: CardContent) -> str:
    use = content.about.use or (
        'Searching by image where devices of different power embed: small widths for queries, big ones for the gallery.'
    )
    licence = content.about.license or 'not stated by the publisher'
    data = f' ({inline(content.data)})' if content.data else ''
    return (
        f'## Intended use and limits\n\n{use}\n\nThe model knows what it was trained on{data}; on other kinds of '
        'images expect much less, and fine-tune all widths together. Fine-tuning one width breaks its compatibility '
        'with the others. Nothing was done about '
        f'biases of the training data. Licence of the weights: {licence}.'
    )


def _shown(value: Any) -> str:
    if isinstance(value, tuple | list):
        return '(' + ', '.join(_shown(item) for item in value) + ')'
    return f'{value:.4g}' if isinstance(value, float) else str(value)
