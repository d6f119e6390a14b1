"""Embeds images with a folder that timm loads, in a process that never imports this package.

Run by its path, not as a module: python _plain_query.py FOLDER IMAGES.npy EMBEDDINGS.npy THREADS
"""

import sys

import numpy as np
import timm
import torch


def main(folder: str, images: str, embeddings: str, threads: str) -> None:
    """Reads (N, C, H, W) float32, already normalised, and writes (N, D)."""
    torch.set_num_threads(int(threads))
    model = timm.create_model(f'local-dir:{folder}', pretrained=True).eval()
    with torch.inference_mode():
        parts = [model(part) for part in torch.from_numpy(np.load(images)).split(128)]
    if 'sfsc_timm' in sys.modules:
        raise RuntimeError('sfsc_timm was imported, so this would prove nothing')
    np.save(embeddings, torch.cat(parts).numpy())


if __name__ == '__main__':
    main(*sys.argv[1:])
