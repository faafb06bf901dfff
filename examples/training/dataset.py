"""scikit-learn's handwritten digits as image files, decoded and augmented sample by sample.

The 1,797 digits are written out once as 256 x 256 PNG files, so that reading a sample costs what it
costs in real life: a file is opened, decompressed, rotated and scaled down, all on the CPU.

    python -m examples.training.dataset --out /tmp/digits
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
from pathlib import Path

import numpy
import torch
from PIL import Image
from torch.utils.data import Dataset

COUNT = 1797
CLASSES = 10
FILE_SIZE = 256
SAMPLE_SIZE = 32
MAX_ROTATION_DEGREES = 20.0


def write(folder: Path) -> None:
    """Writes the digits into ``folder``: the same bytes every time, all of them or none."""
    from sklearn.datasets import load_digits  # only here: a second of start-up that ranks save

    digits = load_digits()
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        partial.chmod(0o755)
        for index, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            image = Image.fromarray((pixels * (255 / 16)).astype(numpy.uint8))
            image = image.resize((FILE_SIZE, FILE_SIZE), Image.Resampling.BICUBIC)
            image.save(partial / f"{index:04d}-{label}.png")
        partial.rename(folder)
    except OSError:
        # Several ranks may begin at once; the first to finish wins, the others use its files.
        if not complete(folder):
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def complete(folder: Path) -> bool:
    """Whether ``write`` has finished there."""
    return folder.is_dir() and sum(1 for _ in folder.glob("*.png")) == COUNT


class Digits(Dataset[tuple[torch.Tensor, int]]):
    """Map-style: one file, one sample. Rotation draws on ``random``, which torch seeds anew in
    every worker process."""

    def __init__(self, folder: Path) -> None:
        self.files = sorted(folder.glob("*.png"))
        if len(self.files) != COUNT:
            raise FileNotFoundError(
                f"{folder} holds {len(self.files)} of {COUNT} digits: remove it and run "
                f"python -m examples.training.dataset --out {folder}"
            )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path = self.files[index]
        angle = random.uniform(-MAX_ROTATION_DEGREES, MAX_ROTATION_DEGREES)
        with Image.open(path) as file:
            image = file.convert("L").rotate(angle, Image.Resampling.BICUBIC)
        image = image.resize((SAMPLE_SIZE, SAMPLE_SIZE), Image.Resampling.LANCZOS)
        pixels = numpy.asarray(image, dtype=numpy.float32) / 255
        return torch.from_numpy(pixels)[None], int(path.stem.partition("-")[2])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the digits out as PNG files.")
    parser.add_argument("--out", type=Path, required=True)
    folder = parser.parse_args().out
    if not complete(folder):
        write(folder)
    print(f"{COUNT} digits in {folder}")
