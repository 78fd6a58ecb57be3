"""Sound: log-mel energies, encoded by a small convolutional network, or by Whisper's encoder."""

from __future__ import annotations

import dataclasses
import math
import wave
from pathlib import Path

import keras
import numpy as np
from keras import layers

from fusion_keras.backbones import backbone_weights
from fusion_keras.backbones.facts import Facts
from fusion_keras.backbones.presets import AudioPreset, find_audio, load_audio
from fusion_keras.data import log_mel, sound
from fusion_keras.data.records import Dataset, Reading, Records
from fusion_keras.errors import UsageError
from fusion_keras.modalities.base import Modality, map_tokens


@dataclasses.dataclass(frozen=True)
class AudioReader:
    """Files with a sound track -> log-mel energies float32 [N, F, bands], 0 where all is silent."""

    seconds: float
    front_end: log_mel.FrontEnd

    def require(self, records: Records) -> None:
        if "audio" not in records.raw:
            raise UsageError(
                f"got the source {records.name!r} without sound, wanted sound for this variant; "
                "name where it is (data.manifest.audio_column, data.mosi.raw_dir), or leave audio "
                "out of fusion.modalities."
            )

    def read(self, records: Records, folder: Path) -> Reading:
        self.require(records)
        args = (self.seconds, folder, records.skips, records.origins, self.front_end)
        return Reading(*sound.decode_all(records.raw["audio"], *args))


class Audio(Modality):
    """Sound."""

    name = "audio"
    noun, plural = "sound", "sound"
    files = True

    def reader(self, config) -> AudioReader:
        front_end = find_audio(config.audio.preset).cls.front_end
        front_end.described(config.audio.seconds)  # or there is no such clip
        return AudioReader(config.audio.seconds, front_end)

    def described(self, preset: AudioPreset, config) -> dict:
        return preset.backbone.front_end.described(preset.seconds)

    def one(self, given, reader: AudioReader, described):
        waveform = given if isinstance(given, np.ndarray) else sound.decode(Path(given))
        if waveform.dtype != np.float32 or waveform.ndim != 1:
            raise ValueError(
                f"got {waveform.dtype} {list(waveform.shape)}, wanted float32 [n], "
                f"{log_mel.RATE} a second"
            )
        clip = log_mel.fit(waveform, log_mel.samples_of(reader.seconds))
        return reader.front_end.log_mel(clip)

    def nothing(self, count, reader: AudioReader, described):
        made = reader.front_end.described(reader.seconds)
        return np.zeros((count, made["frames"], made["bands"]), np.float32)

    def write_raw(self, folder: Path, index: int, dataset: Dataset, row: int) -> None:
        """Decoded to what the device reads: 16 kHz, one channel, 16 bits."""
        waveform = sound.decode(dataset.raw["audio"][row])
        with wave.open(str(folder / f"{index:02}.wav"), "wb") as file:
            file.setparams((1, 2, log_mel.RATE, 0, "NONE", "not compressed"))
            samples = (np.clip(waveform, -1, 1) * 32767).round().astype("<i2")
            file.writeframes(samples.tobytes())

    def emptied(self, values: np.ndarray, rows: np.ndarray, preset) -> np.ndarray:
        values = values.copy()
        values[rows] = 0
        return values

    def facts(self, config) -> Facts:
        return find_audio(config.audio.preset).facts

    def load(self, config, encoding: dict | None = None) -> AudioPreset:
        return load_audio(config.audio.preset, config.audio.seconds)

    def placeholder(self, preset: AudioPreset, length: int | None) -> keras.KerasTensor:
        return keras.Input(preset.backbone.input.shape[1:], dtype="float32", name=self.input)

    def tokens(self, tap, width: int, grid: int, name: str):
        """Along time, averaged over frequency, in at most as many tokens as the grid has."""
        if len(tap.shape) == 3:
            tap = layers.Reshape((tap.shape[1], 1, tap.shape[2]), name=f"{name}_bands")(tap)
        else:
            bands = tap.shape[2]
            tap = layers.AveragePooling2D((1, bands), name=f"{name}_bands")(tap)  # [B, t, 1, C]
        return map_tokens(tap, width, (math.ceil(tap.shape[1] / grid**2), 1), name)

    def weights(self, part: keras.Model) -> dict:
        return backbone_weights.audio(part)
