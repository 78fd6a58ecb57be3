"""The modalities, each in a file of its own, by name."""

from fusion_keras.data.modalities import MODALITIES
from fusion_keras.modalities.audio import Audio
from fusion_keras.modalities.base import Modality
from fusion_keras.modalities.image import Image
from fusion_keras.modalities.tabular import Tabular
from fusion_keras.modalities.text import Text

MODALITY: dict[str, Modality] = {m.name: m for m in (Text(), Image(), Audio(), Tabular())}
assert tuple(MODALITY) == MODALITIES
