"""Data sets of three kinds: image files, a table of numbers, text. Written once, read for real.

A sample is read from its file by the process that loads it and decoded with real CPU work, ``cost``
times over. With ``cold`` the page cache is told to forget the sample first, so that the read goes
to the disk, and to whatever throttles it there.
"""

from __future__ import annotations

import io
import mmap
import os
import random
import re
import shutil
import tempfile
from pathlib import Path

import numpy
import torch
from PIL import Image
from torch.utils.data import Dataset

IMAGES = 600
IMAGE_SIDE = 256
SAMPLE_SIDE = 32
RECORDS = 6000
RECORD_FLOATS = 4096
CHUNKS = 4000
CHUNK_BYTES = 16 * 1024
TOKENS = 64
CLASSES = 10
WORD = re.compile(rb"[a-z]+")

Sample = tuple[torch.Tensor, int]


def prepare(folder: Path) -> None:
    """Writes all data sets into ``folder``, all of them or none; the same bytes every time."""
    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        partial.chmod(0o755)
        _write_images(partial / "images")
        _write_table(partial / "table.f32")
        _write_text(partial / "text.txt")
        os.sync()  # what is dirty cannot be dropped from the page cache
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_images(folder: Path) -> None:
    from sklearn.datasets import load_digits  # only here: a second that nobody else has to wait

    digits = load_digits()
    folder.mkdir()
    for index in range(IMAGES):
        pixels = (digits.images[index] * (255 / 16)).astype(numpy.uint8)
        image = Image.fromarray(pixels).resize((IMAGE_SIDE, IMAGE_SIDE), Image.Resampling.BICUBIC)
        image.save(folder / f"{index:04d}-{digits.target[index]}.bmp")


def _write_table(path: Path) -> None:
    draw = numpy.random.default_rng(7)
    with path.open("wb") as file:
        for _ in range(RECORDS):
            file.write(draw.standard_normal(RECORD_FLOATS, dtype=numpy.float32).tobytes())


def _write_text(path: Path) -> None:
    draw = random.Random(7)  # noqa: S311
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=n % 9 + 2)) for n in range(999)]
    with path.open("wb") as file:
        for _ in range(CHUNKS):
            text = " ".join(draw.choices(words, k=CHUNK_BYTES // 3)).encode()
            file.write(text[:CHUNK_BYTES])


class _Files(Dataset[Sample]):
    """What the three have in common: reading ``length`` bytes of a file, cold or not."""

    def __init__(self, cold: bool, cost: float) -> None:
        self.cold = cold
        self.cost = cost

    def read(self, path: Path, offset: int = 0, length: int = -1) -> bytes:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if length < 0:
                length = os.fstat(descriptor).st_size
            if self.cold:
                # Exactly this sample: no reading ahead, and nothing from the cache.
                os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_RANDOM)
                os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_DONTNEED)
            return os.pread(descriptor, length, offset)
        finally:
            os.close(descriptor)

    def times(self) -> int:
        """How often the costly part is done for this sample: ``cost`` on average."""
        whole = int(self.cost)
        return whole + (random.random() < self.cost - whole)  # noqa: S311


class Images(_Files):
    """One bitmap file (66 kB), one sample; costly: turned by a random angle at full size."""

    def __init__(self, folder: Path, cold: bool, cost: float) -> None:
        super().__init__(cold, cost)
        self.files = sorted((folder / "images").glob("*.bmp"))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        path = self.files[index]
        image = Image.open(io.BytesIO(self.read(path))).convert("L")
        for _ in range(self.times()):
            angle = random.uniform(-5, 5)  # noqa: S311
            image = image.rotate(angle, Image.Resampling.BICUBIC)
        image = image.resize((SAMPLE_SIDE, SAMPLE_SIDE), Image.Resampling.BOX)
        pixels = numpy.asarray(image, dtype=numpy.float32) / 255
        return torch.from_numpy(pixels)[None], int(path.stem.partition("-")[2])


class Table(_Files):
    """One record of 4,096 numbers (16 kB), one sample; costly: sorted and Fourier-transformed.

    With ``mapped`` the file is mapped into memory instead of read."""

    def __init__(self, folder: Path, cold: bool, cost: float, mapped: bool = False) -> None:
        super().__init__(cold, cost)
        self.path = folder / "table.f32"
        self.map: mmap.mmap | None = None
        if mapped:
            with self.path.open("rb") as file:
                # Whoever reads a page first is charged for it: that has to be this pod.
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                self.map = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)

    def __len__(self) -> int:
        return RECORDS

    def __getitem__(self, index: int) -> Sample:
        length = RECORD_FLOATS * 4
        if self.map is not None:
            content: bytes = self.map[index * length : (index + 1) * length]
        else:
            content = self.read(self.path, index * length, length)
        values = numpy.frombuffer(content, numpy.float32)
        for _ in range(self.times()):
            spectrum = numpy.abs(numpy.fft.rfft(numpy.sort(values)))
            values = values + spectrum[0].astype(numpy.float32) * 1e-9
        return torch.from_numpy(values / (values.std() + 1e-6)), index % CLASSES


class Text(_Files):
    """16 kB of text, of which the first words are the sample; costly: taken apart into words."""

    def __init__(self, folder: Path, cold: bool, cost: float) -> None:
        super().__init__(cold, cost)
        self.path = folder / "text.txt"

    def __len__(self) -> int:
        return CHUNKS

    def __getitem__(self, index: int) -> Sample:
        content = self.read(self.path, index * CHUNK_BYTES, CHUNK_BYTES)
        counts: dict[bytes, int] = {}
        for _ in range(self.times()):
            for word in WORD.findall(content):
                counts[word] = counts.get(word, 0) + 1
        tokens = numpy.frombuffer(content[:TOKENS], numpy.uint8).astype(numpy.int64) % 128
        return torch.from_numpy(tokens), index % CLASSES
