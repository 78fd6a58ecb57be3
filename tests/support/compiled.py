"""How XLA compiles what runs a few times: fast, the program being slow."""

import importlib.metadata

_FLAGS = ["--xla_backend_optimization_level=0", "--xla_cpu_parallel_codegen_split_count=1"]
if importlib.metadata.version("jaxlib").startswith("0.10."):
    # Half of the compilation otherwise; a later XLA knows no such flag, and would abort.
    _FLAGS.append("--xla_cpu_use_fusion_emitters=false")


def fast(devices: int = 1) -> dict[str, str]:
    """The environment of a process that compiles so, of as many CPU devices."""
    made = [f"--xla_force_host_platform_device_count={devices}"] if devices > 1 else []
    return {"XLA_FLAGS": " ".join([*_FLAGS, *made])}
