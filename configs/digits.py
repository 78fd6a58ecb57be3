"""The audio-visual digit study at full size: Barnum et al. 2020 (arXiv 2011.07191), appendix A.2.

    python -m fusion_keras.digits --figure=1 --config=configs/digits.py --config.data.path=DIGITS
    python -m fusion_keras.train --config=configs/digits.py --variant=clstm_initial \
        --config.data.path=DIGITS \
        --config.data.digits.audio_snr=0.5 --config.data.digits.image_snr=0.25

DIGITS holds `mnist/*.gz` (MNIST's four files) and `fsdd/recordings/*.wav` (the Free Spoken
Digit Dataset). 28 x 28 images, 64 units, 2.3 s of sound in 91 steps, 87516 training pairs:
for a GPU. `digits_small.py` is for a CPU.
"""

from fusion_keras.config import get_config as default_config


def get_config():
    config = default_config()
    config.name = "digits"
    config.variant = "clstm_initial"
    config.recipe = "digits"
    config.data.source = "digits"
    return config
