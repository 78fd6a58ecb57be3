"""A data set by the readers of named modalities, in short."""

from pathlib import Path

from fusion_keras.data.images import ImageSpec
from fusion_keras.data.load import load_dataset as load
from fusion_keras.data.log_mel import VGGISH
from fusion_keras.data.records import Dataset
from fusion_keras.data.tokens import load_tokenizer
from fusion_keras.modalities.audio import AudioReader
from fusion_keras.modalities.image import ImageReader
from fusion_keras.modalities.text import TextReader


def load_dataset(
    data,
    *,
    tokenizer_dir: Path | None = None,
    image_spec: ImageSpec | None = None,
    seconds: float | None = None,
    keep_incomplete: bool = False,
) -> Dataset:
    """`data.load.load_dataset` with a reader for each argument that is given, as a task asks."""
    readers = {}
    if image_spec is not None:
        readers["image"] = ImageReader(image_spec)
    if seconds is not None:
        readers["audio"] = AudioReader(seconds, VGGISH)
    if tokenizer_dir is not None:
        readers["text"] = TextReader(load_tokenizer(tokenizer_dir), data.max_length)
    return load(data, readers, keep_incomplete)
