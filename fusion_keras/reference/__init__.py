"""Every fusion variant in plain PyTorch: what our models must equal, and outrun."""
