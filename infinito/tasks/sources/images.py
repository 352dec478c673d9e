"""Folders of images, one folder a class, with or without folders train, validation and test above them."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from infinito.mistakes import one_line
from infinito.tasks.sources.source import Columns, Source, split_of

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")  # Pillow's names of more than 8 bits a pixel


def read(folder: Path, allowed: str) -> Source:
    """All images, uint8 [N, H, W] if all are grey, else [N, 3, H, W]; columns image and class.

    Args:
        folder: holds a folder for every class, or for every split.
        allowed: other forms of a folder, for the message.

    Raises:
        ValueError: no folders; a class without images; images that are not readable or of several sizes.
    """
    below = _folders(folder)
    if not below:
        raise ValueError(f"prepare.source: {folder}: found no folders and no file of a split; allowed: {allowed}")
    names = {str(split_of(path.name)): path for path in below if split_of(path.name)}
    roots = names if len(names) == len(below) else {"all": folder}
    files = {split: _files(root) for split, root in roots.items()}
    every = [file for named in files.values() for file, _ in named]
    pixels = decoded([(None, str(file)) for file in every], str(folder))
    splits: dict[str, Columns] = {}
    start = 0
    for split, named in files.items():
        classes = np.array([name for _, name in named], dtype=object)
        splits[split] = {"image": pixels[start : start + len(named)], "class": classes}
        start += len(named)
    return Source(str(folder), splits, ["image"], ["class"])


def _folders(path: Path) -> list[Path]:
    return [entry for entry in sorted(path.iterdir()) if entry.is_dir() and not entry.name.startswith(".")]


def _files(root: Path) -> list[tuple[Path, str]]:
    """All images below the folders of classes, each with its class."""
    found = []
    for folder in _folders(root):
        images = [file for file in sorted(folder.iterdir()) if file.suffix.lower() in SUFFIXES]
        if not images:
            raise ValueError(f"prepare.source: {folder}: found a class without images; allowed: {', '.join(SUFFIXES)}")
        found += [(file, folder.name) for file in images]
    if not found:
        raise ValueError(f"prepare.source: {root}: found no folders; allowed: a folder of images for every class")
    return found


def decoded(images: Sequence[tuple[bytes | None, str | None]], where: str) -> np.ndarray:
    """Images by their bytes, or else their path: uint8 [N, H, W] if all are grey, else [N, 3, H, W].

    Transparency is left out, and of several frames all but the first; an image is turned as its camera says.

    Raises:
        ValueError: Pillow is not installed; an image is not readable, deeper than 8 bits, or of another size.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ValueError("prepare.source: images need pillow; install infinito[arrays]") from error
    found: list[np.ndarray] = []
    for number, (content, path) in enumerate(images):
        name = path or f"{where}, row {number}"
        try:
            with Image.open(io.BytesIO(content) if content is not None else str(path)) as image:
                mode = image.mode
                turned = ImageOps.exif_transpose(image)
                found.append(np.asarray(turned.convert("L" if mode in ("1", "L", "LA") else "RGB")))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"prepare.source: {name}: not a readable image: {one_line(error)}") from error
        if mode in DEEP:
            raise ValueError(f"prepare.source: {name}: found an image of mode {mode}; allowed: 8 bits a channel")
        if found[-1].shape[:2] != found[0].shape[:2]:
            (h, w), (height, width) = found[0].shape[:2], found[-1].shape[:2]
            first = images[0][1] or f"{where}, row 0"
            raise ValueError(
                f"prepare.source: found images of several sizes: {first} has {w} x {h} pixels, {name} "
                f"{width} x {height}; allowed: one size"
            )
    if len({image.ndim for image in found}) > 1:
        found = [image if image.ndim == 3 else np.repeat(image[..., None], 3, -1) for image in found]
    pixels = np.stack(found)
    return pixels if pixels.ndim == 3 else np.ascontiguousarray(np.moveaxis(pixels, -1, 1))
