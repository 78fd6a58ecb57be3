"""Pattern rules that turn what tf2onnx writes into what engines run well.

tf2onnx writes normalisation, GELU, masks and batch norms as the arithmetic that TensorFlow
has for them, and surrounds each convolution with the transposes of NHWC. `PORTABLE` is a list
of rules, pattern -> replacement, that gives standard ONNX operators back, of opset 20, which
is what TensorRT 10 takes (onnx-tensorrt, docs/operators.md: opset 9 to 20). `portable`
applies them until nothing changes.

Each rule preserves the values of the graph up to rounding; where a rule needs constants of a
certain shape and does not find them, it does not fire.
"""

from __future__ import annotations

import onnx_ir as ir
import onnx_ir.passes.common as passes
from onnxscript.optimizer import fold_constants_ir

from export.arithmetic_rules import ARITHMETIC, PRODUCTS
from export.convolution_rules import CONVOLUTIONS
from export.rule_helpers import apply, tidy
from export.shape_rules import OPEN_AXES, RESHAPES

OPSET = 20
_NO_LIMIT = 1 << 60
# Rules feed each other: a folded batch norm lets a transpose pass, which meets another.
_ROUNDS = 50

PORTABLE = [*ARITHMETIC, *CONVOLUTIONS, *RESHAPES, *PRODUCTS, *OPEN_AXES]


def portable(model: ir.Model) -> dict[str, int]:
    """Rewrite a model of opset 18 in place.

    Returns:
        How often each rule fired.
    """
    model.graph.opset_imports[""] = OPSET
    fired = dict.fromkeys((rule.name for rule in PORTABLE), 0)
    for _ in range(_ROUNDS):
        fold_constants_ir(
            model,
            onnx_shape_inference=True,
            input_size_limit=_NO_LIMIT,
            output_size_limit=_NO_LIMIT,
        )
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        passes.DeduplicateInitializersPass()(model)
        passes.CommonSubexpressionEliminationPass()(model)
        counts = apply(PORTABLE, model)
        tidy(model)
        for name, count in counts.items():
            fired[name] += count
        if not any(counts.values()):
            break
    passes.DeduplicateInitializersPass(size_limit=_NO_LIMIT)(model)
    passes.RemoveUnusedOpsetsPass()(model)
    passes.NameFixPass()(model)
    return fired
