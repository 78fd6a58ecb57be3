"""What each modality is called: as a model's input, and in the settings that withhold it."""

# The input, of each example one row: token ids int32 [T], pixels uint8 [S, S, 3], log-mel
# energies float32 [F, 64].
INPUT_OF = {"text": "token_ids", "image": "image", "audio": "audio"}
MODALITIES = tuple(INPUT_OF)
# The input, float32 [1], that is 1 where the modality is there and 0 where it is not; of models
# that learn stand-ins.
PRESENT = {modality: f"present_{modality}" for modality in MODALITIES}
# The setting of `config.augment` that says how often training withholds it.
DROPS = {modality: f"drop_{modality}" for modality in MODALITIES}
