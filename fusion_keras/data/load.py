"""One call from `config.data` to a `Dataset`: read, split, decode, tokenise, fingerprint."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tokenizers
from PIL import Image

from fusion_keras.data import sound
from fusion_keras.data.cache import cache_dir, cached_array, content_key
from fusion_keras.data.demo import make_demo
from fusion_keras.data.images import ImageSpec, decode_all, fit
from fusion_keras.data.manifest import read_manifest
from fusion_keras.data.mosi import read_mosi
from fusion_keras.data.records import Dataset, Records
from fusion_keras.data.splits import assign_splits, check_records
from fusion_keras.data.tokens import encode, load_tokenizer
from fusion_keras.errors import UsageError

_ROWS_AT_ONCE = 256

# The demo is drawn at the size that is wanted, within these pixels: a face has no more to
# show above, and drawing 1600 of them at 224 takes 13 seconds.
_DEMO_EDGES = (16, 96)


class DataConfig(Protocol):
    """The fields of `config.data` that are read here, and nowhere else in this package."""

    source: str  # one of SOURCES
    name: str  # what the data set is called; "" for the source's own name
    path: str  # the manifest or the MOSI label file; `data.digit_set` reads digits
    max_length: int  # tokens per text, with [CLS] and [SEP]
    max_skipped: float  # the share of rows that may be unusable
    split_fractions: tuple[float, float, float]  # train, valid, test, where the source has none
    split_seed: int
    cache_dir: str  # "" for the default
    manifest: Any  # the sections of one source each: its columns and `classes`
    mosi: Any  # raw_dir and frames_dir, "" for none
    demo: Any  # size, noise and seed


def load_dataset(
    data: DataConfig,
    *,
    tokenizer_dir: Path | None = None,
    image_spec: ImageSpec | None = None,
    seconds: float | None = None,
) -> Dataset:
    """Reads the configured source and makes it ready to train on.

    Only what is asked for is made. The split is assigned before images and sounds are decoded,
    so that an unusable one moves no other row.

    Args:
      tokenizer_dir: for `token_ids`; None leaves them None (image-only variants).
      image_spec: for `images`; None leaves them None (text-only variants), and no image is
        decoded. A manifest's image files must exist all the same, unless image_column is "".
      seconds: length of the clips in `audio`; None leaves it None, and no sound is decoded.

    Raises:
      UsageError: everything that `read_manifest`, `read_mosi`, the two `decode_all`,
        `load_tokenizer` and `encode` say of bad input; an unknown source; images or sound asked
        of a source without any.
    """
    folder, source = cache_dir(data.cache_dir), source_of(data.source)
    if data.name and data.source == "demo":
        raise UsageError(
            f"got data.name={data.name!r} with source=demo, wanted no name: results on the "
            "built-in demo are always called the demo's."
        )
    records = source.read(data, folder, image_spec, seconds)
    if image_spec is not None and records.images is None:
        raise UsageError(
            f"got the source {records.name!r} without images, wanted images for this variant; do "
            "name where they are (data.manifest.image_column, data.mosi.raw_dir or "
            "data.mosi.frames_dir), or choose variant=text."
        )
    if seconds is not None and records.sounds is None:
        raise UsageError(
            f"got the source {records.name!r} without sound, wanted sound for this variant; do "
            "name where it is (data.manifest.audio_column, data.mosi.raw_dir), or leave audio "
            "out of fusion.modalities."
        )
    records, policy = _with_splits(records, data)
    images = audio = None
    if image_spec is not None:
        records, images = _decoded(records, image_spec, folder)
    if seconds is not None:
        found, usable = sound.decode_all(
            records.sounds, seconds, folder, records.skips, records.origins
        )
        records, audio, images = _usable(records, usable, folder, found, images)
    if images is not None or audio is not None:
        records = check_records(records)
    token_ids, notes = None, records.notes + tuple(records.skips.entries if records.skips else ())
    if tokenizer_dir is not None:
        token_ids, cut = _tokenised(records.texts, tokenizer_dir, data.max_length, folder)
        if cut:
            notes += (f"{cut} of {len(records)} texts were cut to {data.max_length} tokens",)
    return Dataset(
        name=data.name or records.name,
        ids=records.ids,
        splits=records.splits,
        texts=records.texts,
        images=images,
        image_files=_files(records, images),
        token_ids=token_ids,
        labels=records.labels,
        classes=records.classes,
        scores=records.scores,
        groups=records.groups,
        notes=notes,
        fingerprint=_fingerprint(records, images, token_ids, audio),
        split_policy=policy,
        audio=audio,
        sounds=None if audio is None else records.sounds,
    )


def _demo(data: DataConfig, folder: Path, spec: ImageSpec | None, seconds: float | None) -> Records:
    edge = min(max(spec.size if spec else 0, _DEMO_EDGES[0]), _DEMO_EDGES[1])
    return make_demo(data.demo.size, data.demo.seed, data.demo.noise, edge)


def _manifest(
    data: DataConfig, folder: Path, spec: ImageSpec | None, seconds: float | None
) -> Records:
    return read_manifest(
        _path(data),
        max_skipped=data.max_skipped,
        **data.manifest,
    )


def _mosi(data: DataConfig, folder: Path, spec: ImageSpec | None, seconds: float | None) -> Records:
    raw, frames = (
        Path(place).expanduser() if place else ""
        for place in (data.mosi.raw_dir, data.mosi.frames_dir)
    )
    # Text-only training does not wait for 2199 videos.
    return read_mosi(
        _path(data),
        raw_dir=raw if spec else "",
        frames_dir=frames if spec else "",
        sound_dir=raw if seconds else "",
        cache_dir=folder,
        max_skipped=data.max_skipped,
    )


@dataclasses.dataclass(frozen=True)
class Source:
    """Where examples come from.

    Attributes:
      read: (config.data, cache folder, image spec, seconds of sound) -> Records; None for what is
        not wanted of images and sound.
      reads: the fields and sections of `config.data` that it reads and not every source does.
    """

    read: Callable[[DataConfig, Path, ImageSpec | None, float | None], Records]
    reads: tuple[str, ...]


_OF_FILES = ("path", "max_skipped")
SOURCES = {
    "demo": Source(_demo, ("demo",)),
    "manifest": Source(_manifest, ("manifest", *_OF_FILES, "split_fractions", "split_seed")),
    "mosi": Source(_mosi, ("mosi", *_OF_FILES)),
}


def source_of(name: str) -> Source:
    """The source that `config.data.source` names.

    Raises:
      UsageError: there is none of that name.
    """
    if name not in SOURCES:
        raise UsageError(
            f"got data.source={name!r}, wanted one of {', '.join(SOURCES)}, or digits with "
            "a C-LSTM."
        )
    return SOURCES[name]


def _path(data: DataConfig) -> Path:
    if not data.path:
        raise UsageError(f"got no data.path, wanted the file that source={data.source!r} reads.")
    return Path(data.path).expanduser()


def _with_splits(records: Records, data: DataConfig) -> tuple[Records, str]:
    """The records with a split, and one sentence on how it came about."""
    if records.splits is not None:
        return records, "as the source gives it; deviations from a standard are in the notes"
    fractions = tuple(data.split_fractions)
    splits = assign_splits(records.labels, records.groups, fractions, data.split_seed)
    kind = "stratified by class" + (", groups undivided" if records.groups else "")
    policy = f"seeded: {kind}, train/valid/test {fractions}, seed {data.split_seed}"
    return check_records(dataclasses.replace(records, splits=splits)), policy


def _decoded(records: Records, spec: ImageSpec, folder: Path) -> tuple[Records, np.ndarray]:
    """The records whose image is usable, and uint8 [N, S, S, 3]."""
    if isinstance(records.images, np.ndarray):  # the demo draws its images
        return records, np.stack([fit(Image.fromarray(image), spec) for image in records.images])
    images, usable = decode_all(records.images, spec, folder, records.skips, records.origins)
    return _usable(records, usable, folder, images)


def _usable(
    records: Records, usable: np.ndarray, folder: Path, *arrays: np.ndarray | None
) -> tuple:
    """The records whose files are all usable, and the same rows of each array [N, ...]."""
    if usable.all():
        return records, *arrays
    records.skips.check()
    kept = np.flatnonzero(usable)
    return records.select(kept), *(None if x is None else _kept(x, kept, folder) for x in arrays)


def _kept(array: np.ndarray, kept: np.ndarray, folder: Path) -> np.ndarray:
    """Through the cache again: the rows that are kept shall be memory-mapped, too."""

    def build(notes: dict) -> Iterator[np.ndarray]:
        for start in range(0, len(kept), _ROWS_AT_ONCE):
            yield array[kept[start : start + _ROWS_AT_ONCE]]

    digest = hashlib.sha256(np.ascontiguousarray(array)).hexdigest()
    key = content_key("usable", digest, kept.tolist())
    return cached_array(folder, key, (len(kept), *array.shape[1:]), array.dtype, build)[0]


def _files(records: Records, images: np.ndarray | None) -> list[Path] | None:
    drawn = isinstance(records.images, np.ndarray)
    return None if images is None or drawn else list(records.images)


def _tokenised(
    texts: list[str], directory: Path, max_length: int, folder: Path
) -> tuple[np.ndarray, int]:
    """(int32 [N, max_length], how many texts were cut), from the cache if they are there."""
    tokenizer = load_tokenizer(directory)

    def build(notes: dict) -> list[np.ndarray]:
        token_ids, notes["cut"] = encode(texts, tokenizer, max_length)
        return [token_ids]

    described = hashlib.sha256(tokenizer.to_str().encode()).hexdigest()
    key = content_key("tokens", tokenizers.__version__, described, max_length, texts)
    token_ids, notes = cached_array(folder, key, (len(texts), max_length), np.int32, build)
    return token_ids, notes["cut"]


def _fingerprint(
    records: Records,
    images: np.ndarray | None,
    token_ids: np.ndarray | None,
    audio: np.ndarray | None,
) -> str:
    """sha256 over all that a model can learn from; where the files lie does not count."""
    fields = [records.ids, records.splits, records.texts, records.labels.tolist()]
    fields += [records.classes, records.groups]
    fields.append(None if records.scores is None else records.scores.tolist())
    digest = hashlib.sha256(json.dumps(fields).encode())
    for array in (images, token_ids):
        digest.update(b"none" if array is None else str(array.shape).encode())
        if array is not None:
            digest.update(np.ascontiguousarray(array))
    # Without sound the fingerprint is that of the versions that knew none.
    if audio is not None:
        digest.update(str(audio.shape).encode())
        digest.update(np.ascontiguousarray(audio))
    return digest.hexdigest()
