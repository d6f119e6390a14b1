"""`cub200`: fine-grained retrieval of birds (Wah et al., The Caltech-UCSD Birds-200-2011 Dataset, 2011)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._files import number, read_mapping, require_ends, require_entry
from ._registry import register_data
from ._types import RetrievalData, Sample

if TYPE_CHECKING:
    from pathlib import Path

TREE = """\
  CUB_200_2011/                     (root)
    images.txt
    image_class_labels.txt
    images/001.Black_footed_Albatross/Black_Footed_Albatross_0001_796111.jpg ..."""

_TRAIN_CLASSES = 100


@register_data('cub200')
def cub200(root: Path) -> RetrievalData:
    """Reads CUB-200-2011 with the split of deep metric learning (Oh Song et al., CVPR 2016).

    The first 100 classes, 5,864 images, are for training; the other 100, 5,924 images, are query and gallery at once.
    (The data set's own train_test_split.txt is for classification and is not used.)

    Args:
        root: The unpacked folder.

    Raises:
        FileNotFoundError: A list or the images are missing.
        ValueError: A line of a list is not in the data set's form.
    """
    images, labels = (require_entry(root, name, TREE) for name in ('images.txt', 'image_class_labels.txt'))
    folder = require_entry(root, 'images', TREE)
    label = {key: number(text, 'the class', labels) for key, text in read_mapping(labels, 'image_id class_id').items()}
    samples = []
    for key, path in read_mapping(images, 'image_id path').items():
        if key not in label:
            raise ValueError(f'{images} has the image {key}, which {labels} has not.')
        samples.append(Sample(folder / path, label[key]))
    train = [sample for sample in require_ends(samples, TREE) if sample.identity <= _TRAIN_CLASSES]
    test = [sample for sample in samples if sample.identity > _TRAIN_CLASSES]
    return RetrievalData('cub200', train, test, test, cameras=False, shared=True, ks=(1, 2, 4, 8))
