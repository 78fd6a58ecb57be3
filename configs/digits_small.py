"""The audio-visual digit study for a CPU: 14 x 14 images, 16 units, half a second of sound.

    python -m fusion_keras.digits --figure=1 --config.data.path=DIGITS
    python -m fusion_keras.train --config=configs/digits_small.py --variant=clstm_initial \
        --config.data.path=DIGITS \
        --config.data.digits.audio_snr=0.5 --config.data.digits.image_snr=0.25

DIGITS as in `digits.py`. A quarter of the pixels, a fifth of the sound and 8000 training
pairs: accuracies are not those of the paper. Three seeds of the three variants are meant
to fit into an hour on two undisturbed cores.
"""

from configs.digits import get_config as digits_config


def get_config():
    config = digits_config()
    config.name = "digits_small"
    config.clstm.image = 14
    config.clstm.steps = 19
    config.clstm.units = 16
    config.data.digits.train_pairs = 8000
    config.data.digits.valid_pairs = 500
    config.data.digits.test_pairs = 1000
    return config
