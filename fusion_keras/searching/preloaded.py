"""What every training of a search imports, once, and without TensorFlow's start-up lines."""

from fusion_keras import cli

with cli.quiet_native_logs():
    import fusion_keras.searching.training  # noqa: F401
