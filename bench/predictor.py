"""For applications: `from bench.predictor import Predictor`; see bench.edge.predictor."""

from bench.edge.errors import BenchError, InputError
from bench.edge.predictor import Answer, Predictor

__all__ = ["Answer", "BenchError", "InputError", "Predictor"]
