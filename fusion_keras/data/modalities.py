"""The names of the modalities, and what is called after them."""

# Modality -> its input of a model, in the order of everything that lists them. Text stands first:
# it alone has an open length.
INPUT_OF = {"text": "token_ids", "image": "image", "audio": "audio", "tabular": "tabular"}
MODALITIES = tuple(INPUT_OF)
# The input, float32 [1], that is 1 where the modality is there and 0 where it is not; of models
# that learn stand-ins.
PRESENT = {modality: f"present_{modality}" for modality in MODALITIES}
# What a student's tap of it is compared with, float32 [D + 1], and the output that is: a teacher's
# tap, and 1 where there is one.
TAP_OF = {modality: f"tap_{modality}" for modality in MODALITIES}
# The setting of `config.augment` that says how often training withholds it.
DROPS = {modality: f"drop_{modality}" for modality in MODALITIES}
