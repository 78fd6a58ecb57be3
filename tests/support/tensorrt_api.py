"""What TensorRT's Python module takes, for machines that cannot have it.

Names and arguments are those of the published bindings, python/src/infer/pyCore.cpp,
infer/pyGraph.cpp and parsers/pyOnnx.cpp of github.com/NVIDIA/TensorRT at release/10.3 (JetPack
6.1 and 6.2), release/10.16 (JetPack 7.2) and release/11.1; a call that one of them does not have,
or with other arguments, is an error. release/8.6 is there to be refused. The
parser reads the ONNX file with `onnx`, so inputs and their open axes are the file's own. An
engine reads and writes the addresses that it was given; what it computes is the test's to say.
"""

import ast
import ctypes
import enum
import inspect
import types

import numpy as np
import onnx

# class -> method -> arguments; the same in all three releases.
METHODS = {
    "Builder": {
        "create_network": ("flags",),
        "create_builder_config": (),
        "create_optimization_profile": (),
        "build_serialized_network": ("network", "config"),
    },
    "OnnxParser": {"parse_from_file": ("model",), "get_error": ("index",)},
    "INetworkDefinition": {"get_input": ("index",)},
    "IBuilderConfig": {
        "set_memory_pool_limit": ("pool", "pool_size"),
        "clear_flag": ("flag",),
        "add_optimization_profile": ("profile",),
        "create_timing_cache": ("serialized_timing_cache",),
        "set_timing_cache": ("cache", "ignore_mismatch"),
        "get_timing_cache": (),
    },
    "IOptimizationProfile": {"set_shape": ("input", "min", "opt", "max")},
    "ITimingCache": {"serialize": ()},
    "Runtime": {"deserialize_cuda_engine": ("serialized_engine",)},
    "ICudaEngine": {
        "create_execution_context": (),
        "get_tensor_name": ("index",),
        "get_tensor_mode": ("name",),
        "get_tensor_dtype": ("name",),
    },
    "IExecutionContext": {
        "set_optimization_profile_async": ("profile_index", "stream_handle"),
        "set_input_shape": ("name", "shape"),
        "get_tensor_shape": ("name",),
        "set_tensor_address": ("name", "memory"),
        "execute_async_v3": ("stream_handle",),
    },
}
# enumeration -> members that matter here, by release.
_ENUMS_10 = {
    "BuilderFlag": ("FP16", "BF16", "INT8", "TF32"),
    "MemoryPoolType": ("WORKSPACE",),
    "NetworkDefinitionCreationFlag": ("EXPLICIT_BATCH", "STRONGLY_TYPED"),
    "TensorIOMode": ("NONE", "INPUT", "OUTPUT"),
}
ENUMS = {
    "8.6": {**_ENUMS_10, "NetworkDefinitionCreationFlag": ("EXPLICIT_BATCH",)},
    "10.3": _ENUMS_10,
    "10.16": _ENUMS_10,
    "11.1": {
        **_ENUMS_10,
        "BuilderFlag": ("TF32",),
        "NetworkDefinitionCreationFlag": ("STRONGLY_TYPED",),
    },
}
# What 10.3 or 10.16 have and 11.1 has not, of the classes that engines are built and run with:
# by comparing the bindings named above. NVIDIA's own list, docs.nvidia.com/deeplearning/tensorrt/
# 11.4.0/api/migration/tensorrt-10x-to-11x-python-api-reference.html, also has
# BuilderFlag.DIRECT_IO, which is still there.
REMOVED_IN_11 = {
    "Builder": "platform_has_fast_fp16 platform_has_fast_int8 platform_has_tf32",
    "BuilderFlag": "BF16 FP16 FP4 FP8 INT4 INT8 OBEY_PRECISION_CONSTRAINTS "
    "PREFER_PRECISION_CONSTRAINTS REJECT_EMPTY_ALGORITHMS WEIGHTLESS",
    "IBuilderConfig": "algorithm_selector clear_quantization_flag get_calibration_profile "
    "get_quantization_flag int8_calibrator quantization_flags set_calibration_profile "
    "set_quantization_flag",
    "ICudaEngine": "create_execution_context_without_device_memory device_memory_size "
    "get_device_memory_size_for_profile has_implicit_batch_dimension "
    "minimum_weight_streaming_budget weight_streaming_budget",
    "IExecutionContext": "all_shape_inputs_specified",
    "IPluginRegistry": "get_plugin_creator plugin_creator_list",
    "NetworkDefinitionCreationFlag": "EXPLICIT_BATCH",
    "OnnxParser": "parse_with_weight_descriptors supports_model",
    "PreviewFeature": "MULTIDEVICE_RUNTIME_10_16 PROFILE_SHARING_0806",
    "TacticSource": "CUBLAS CUBLAS_LT CUDNN",
    "": "CalibrationAlgoType IAlgorithm IAlgorithmContext IAlgorithmIOInfo IAlgorithmSelector "
    "IAlgorithmVariant IInt8Calibrator IInt8EntropyCalibrator IInt8EntropyCalibrator2 "
    "IInt8LegacyCalibrator IInt8MinMaxCalibrator IStreamReader QuantizationFlag",
}


def removed_in_11(code: str) -> list[str]:
    """What a module's code names of REMOVED_IN_11, as Class.member: also in branches not run.

    Members of enumerations are told by their class, since DataType still has INT8; all others
    by their name alone.
    """
    found = []
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Attribute):
            continue
        holder = getattr(node.value, "attr", getattr(node.value, "id", None))
        for owner, members in REMOVED_IN_11.items():
            if node.attr in members.split() and (node.attr.islower() or owner in ("", holder)):
                found.append(f"{owner}.{node.attr}")
    return found


def module(release: str, fails: str = "", engine: dict | None = None) -> types.SimpleNamespace:
    """Stands for `import tensorrt`; what was called is in `calls`, (method, *arguments).

    fails: "cuda", "parse", "timing cache" or "build", as the real one reports it; "plan" and
        "shape" of what runs.
    engine: inputs (name -> dtype), outputs (name -> dtype), profiles (how many), and run: arrays
        by name -> arrays by name.
    """
    trt = types.SimpleNamespace(
        __name__="tensorrt", __version__=f"{release}.0", calls=[], fails=fails, engine=engine
    )
    for name, members in ENUMS[release].items():
        setattr(trt, name, enum.IntEnum(name, members, start=0))
    trt.Logger = type("Logger", (), {"WARNING": 2, "__init__": lambda self, min_severity: None})
    trt.Builder = lambda logger: _builder(trt)
    trt.Runtime = lambda logger: _Object(trt, "Runtime")
    trt.nptype = lambda dtype: np.dtype(dtype).type
    trt.OnnxParser = lambda network, logger: _Object(trt, "OnnxParser", network=network)
    return trt


def _builder(trt):
    if trt.fails == "cuda":
        raise TypeError("pybind11::init(): factory function returned nullptr")
    return _Object(trt, "Builder")


class _Object:
    """An instance of one of METHODS: knows its methods, counts its arguments."""

    def __init__(self, trt, kind, **attributes):
        self._trt, self._kind = trt, kind
        self.__dict__.update(attributes)

    def __getattr__(self, method):
        if method not in METHODS[self._kind]:
            raise AttributeError(f"{self._kind} of TensorRT has no {method}")
        arguments = METHODS[self._kind][method]
        kinds = inspect.Parameter.POSITIONAL_OR_KEYWORD
        signature = inspect.Signature([inspect.Parameter(a, kinds) for a in arguments])

        def call(*args, **kwargs):
            bound = signature.bind(*args, **kwargs)
            self._trt.calls.append((method, *bound.arguments.values()))
            return getattr(self, f"_{method}", lambda **_: None)(**bound.arguments)

        return call

    def _create_network(self, flags):
        return _Object(self._trt, "INetworkDefinition", inputs=[])

    def _create_builder_config(self):
        return _Object(self._trt, "IBuilderConfig", cache=None)

    def _create_optimization_profile(self):
        return _Object(self._trt, "IOptimizationProfile")

    def _build_serialized_network(self, network, config):
        return None if self._trt.fails == "build" else memoryview(b"a plan")

    def _parse_from_file(self, model):
        for value in onnx.load(model, load_external_data=False).graph.input:
            shape = [d.dim_value or -1 for d in value.type.tensor_type.shape.dim]
            self.network.inputs.append(types.SimpleNamespace(name=value.name, shape=shape))
        self.network.num_inputs = len(self.network.inputs)
        self.num_errors = int(self._trt.fails == "parse")
        return not self.num_errors

    def _get_error(self, index):
        said = {"desc": "No importer registered for op: Frob", "node_name": "head/frob"}
        said["node_operator"] = "Frob"
        said["code"] = types.SimpleNamespace(name="INVALID_NODE")
        return types.SimpleNamespace(**{name: lambda x=x: x for name, x in said.items()})

    def _get_input(self, index):
        return self.inputs[index]

    def _create_timing_cache(self, serialized_timing_cache):
        return _Object(self._trt, "ITimingCache", data=serialized_timing_cache)

    def _set_timing_cache(self, cache, ignore_mismatch):
        self.cache = cache
        return self._trt.fails != "timing cache"

    def _get_timing_cache(self):
        return self.cache

    def _serialize(self):
        return memoryview(bytes(self.data) + b"more timings ")

    def _deserialize_cuda_engine(self, serialized_engine):
        if self._trt.fails == "plan":
            return None
        engine = self._trt.engine
        tensors = {**engine["inputs"], **engine["outputs"]}
        return _Object(
            self._trt,
            "ICudaEngine",
            tensors=tensors,
            num_io_tensors=len(tensors),
            num_optimization_profiles=engine["profiles"],
        )

    def _get_tensor_name(self, index):
        return list(self.tensors)[index]

    def _get_tensor_mode(self, name):
        modes = self._trt.TensorIOMode
        return modes.INPUT if name in self._trt.engine["inputs"] else modes.OUTPUT

    def _get_tensor_dtype(self, name):
        return self.tensors[name]

    def _create_execution_context(self):
        return _Object(self._trt, "IExecutionContext", shapes={}, addresses={})

    def _set_optimization_profile_async(self, profile_index, stream_handle):
        return profile_index < self._trt.engine["profiles"]

    def _set_input_shape(self, name, shape):
        self.shapes[name] = shape
        return self._trt.fails != "shape"

    def _get_tensor_shape(self, name):
        if name in self.shapes:
            return self.shapes[name]
        dtypes = self._trt.engine["inputs"]
        zeros = {n: np.zeros(shape, dtypes[n]) for n, shape in self.shapes.items()}
        return self._trt.engine["run"](zeros)[name].shape

    def _set_tensor_address(self, name, memory):
        self.addresses[name] = memory
        return True

    def _execute_async_v3(self, stream_handle):
        engine = self._trt.engine
        inputs = {n: self._array(n, self.shapes[n], t) for n, t in engine["inputs"].items()}
        for name, value in engine["run"](inputs).items():
            self._array(name, value.shape, engine["outputs"][name])[...] = value
        return True

    def _array(self, name, shape, dtype):
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        memory = (ctypes.c_byte * size).from_address(self.addresses[name])
        return np.frombuffer(memory, dtype).reshape(shape)
