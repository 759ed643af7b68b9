"""SGLang's own code on a GPU that is not here, for the planner's tests: a program of its own, since it fakes CUDA.

`python planner_probe.py resolve < cases.json` runs SGLang's argument resolver, `… build < cases.json` builds models on
the meta device inside a fake process group. Input and output are JSON lists, one entry per case.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import inspect
import json
import logging
import os
import sys
import traceback
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class _Card:
    """What torch.cuda.get_device_properties answers."""

    def __init__(self, label: str, memory_mib: int, capability: tuple[int, int]) -> None:
        self.name, self.total_memory, self.multi_processor_count = label, memory_mib * 2**20, 132
        self.major, self.minor = capability
        self.memory_mib = memory_mib


class _Handle:
    """A CUDA stream or event that nothing waits for."""

    def __init__(self, *_: Any, **__: Any) -> None:
        return None


class _OnMeta(TorchFunctionMode):
    """Tensors that SGLang places on the GPU by name, on the meta device."""

    def __torch_function__(self, function: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": "meta"}
        return function(*args, **kwargs)


CURRENT = _Card("NVIDIA H100 80GB HBM3", 81559, (9, 0))


class _Absent:
    """A name out of a package that is not installed: it can be looked into and used as a decorator."""

    def __init__(self, name: str, *_: Any) -> None:  # more arguments when it is used as a base class
        self.name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Absent(f"{self.name}.{name}")

    def __call__(self, *args: Any, **_: Any) -> Any:
        """As a decorator it leaves the function alone; nothing else of it is ever used to build a model."""
        return args[0] if len(args) == 1 and callable(args[0]) else _Absent(self.name)


class _AbsentKernels(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """CUDA kernel packages whose every name exists."""

    roots = frozenset(
        {"sgl_kernel", "deep_gemm", "flashinfer", "deep_ep", "sgl_deep_gemm", "flash_mla", "quack", "cutlass"}
    )

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name.split(".")[0] in self.roots:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        module = types.ModuleType(spec.name)
        module.__path__ = []
        module.__dict__["__version__"] = "99.0.0"

        def missing(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return _Absent(f"{spec.name}.{name}")

        module.__dict__["__getattr__"] = missing
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        return None


def pretend() -> None:
    """CURRENT as the GPU, before SGLang is imported."""
    os.environ["SGLANG_USE_CPU_ENGINE"] = "0"
    cuda: Any = torch.cuda
    cuda.is_available = lambda: True
    cuda.device_count = lambda: 8
    cuda.get_device_properties = lambda *_, **__: CURRENT
    cuda.get_device_capability = lambda *_, **__: (CURRENT.major, CURRENT.minor)
    cuda.get_device_name = lambda *_, **__: CURRENT.name
    cuda.mem_get_info = lambda *_, **__: (CURRENT.total_memory, CURRENT.total_memory)
    cuda.set_device = lambda *_, **__: None
    cuda.current_device = lambda: 0
    cuda.Stream = cuda.Event = _Handle
    torch.version.cuda = "13.0"


def pretend_memory() -> None:
    """SGLang's own memory question, in every module that imported it."""
    for module in list(sys.modules.values()):
        if module and module.__name__.startswith("sglang") and hasattr(module, "get_device_memory_capacity"):
            module.get_device_memory_capacity = lambda *_, **__: CURRENT.memory_mib  # type: ignore[attr-defined]


def choose_card(card: dict[str, Any]) -> None:
    CURRENT.__init__(card["label"], card["memoryMib"], (card["capability"] // 10, card["capability"] % 10))  # type: ignore[misc]
    for module in list(sys.modules.values()):
        for name in getattr(module, "__dict__", {}) if module and module.__name__.startswith("sglang") else ():
            cached = module.__dict__[name]
            if name.startswith(("is_sm", "is_blackwell", "is_hopper")) and hasattr(cached, "cache_clear"):
                cached.cache_clear()


class _Said(logging.Handler):
    """Deprecation messages, which SGLang logs as often as it warns them."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if "deprecat" in text.lower():
            self.lines.append(text)


@contextmanager
def listening() -> Iterator[list[str]]:
    handler = _Said()
    logging.getLogger().addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield handler.lines
        handler.lines += [
            str(w.message) for w in caught if "deprecat" in str(w.message).lower() and "sglang" in str(w.filename)
        ]
    finally:
        logging.getLogger().removeHandler(handler)


def resolve(argv: list[str]) -> Any:
    """SGLang's resolved ServerArgs for an argument list."""
    from sglang.srt import server_args

    args = server_args.prepare_server_args(argv)
    args.resolve_once()
    args.check_server_args()
    return args


def resolve_case(case: dict[str, Any]) -> dict[str, Any]:
    choose_card(case["card"])
    with listening() as said:
        try:
            values = resolve(case["argv"]).resolved_dict()
        except BaseException as problem:
            traceback.print_exc()
            return {"error": f"{type(problem).__name__}: {problem}", "said": said, "values": {}}
    return {
        "error": None,
        "said": said,
        "values": json.loads(json.dumps({k: values.get(k) for k in case["keys"]}, default=str)),
    }


def without_kernels(coordinator: Any) -> None:
    """Process groups without NCCL and custom all-reduce: they are never used to build a model."""
    original = coordinator.__init__

    def init(self: Any, *positional: Any, **named: Any) -> None:
        for option in [name for name in inspect.signature(original).parameters if name.startswith("use_")]:
            named[option] = False
        bound = inspect.signature(original).bind_partial(self, *positional[:3])
        original(*bound.args, **named)

    coordinator.__init__ = init


def build_case(case: dict[str, Any]) -> dict[str, Any]:
    """Bytes on rank 0 of the case's layout, by parameter or buffer name, as SGLang's loader would allocate them."""
    import torch.distributed as dist
    from sglang.srt import runtime_context
    from sglang.srt.configs.load_config import LoadConfig
    from sglang.srt.configs.model_config import ModelConfig
    from sglang.srt.distributed import parallel_state
    from sglang.srt.distributed.device_communicators import triton_symm_mem_ag
    from sglang.srt.layers.dp_attention import initialize_dp_attention_flags
    from sglang.srt.layers.moe.utils import draft_model_build_scope, initialize_moe_config
    from sglang.srt.model_loader import loader
    from torch.testing._internal.distributed.fake_pg import FakeStore

    choose_card(case["card"])
    args = resolve(case["argv"])
    world = args.tp_size
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=world)
    new_group = dist.new_group
    dist.new_group = lambda ranks=None, **_: new_group(ranks, backend="fake")
    runtime_context.publish(args, role="scheduler", ranks=runtime_context.SpawnRanks(world_rank=0, gpu_id=0))
    parallel_state._group_coordinator_device = lambda _: torch.device("cpu")
    without_kernels(parallel_state.GroupCoordinator)
    parallel_state.init_distributed_environment(world, 0, "tcp://unused", 0, backend="fake")
    parallel_state.initialize_model_parallel(backend="fake")
    initialize_dp_attention_flags(args)
    initialize_moe_config()
    triton_symm_mem_ag.MultimemAllGatherer = _Handle
    config = ModelConfig.from_server_args(args, is_draft_model=case["draft"])
    quantization = loader._get_quantization_config(config, LoadConfig())
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("meta"), _OnMeta():
        if case["draft"]:
            with draft_model_build_scope():
                model = loader._initialize_model(config, LoadConfig(), quantization)
        else:
            model = loader._initialize_model(config, LoadConfig(), quantization)
    sizes: dict[str, int] = {}
    seen: set[int] = set()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if id(tensor) not in seen:
            seen.add(id(tensor))
            sizes[name] = tensor.numel() * tensor.element_size()
    return {"error": None, "sizes": sizes}


def in_child(case: dict[str, Any]) -> dict[str, Any]:
    """`build_case` in a fork: process groups and published configurations are one per process."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer = build_case(case)
        except BaseException as problem:
            traceback.print_exc()
            answer = {"error": f"{type(problem).__name__}: {problem}", "sizes": {}}
        with os.fdopen(writer, "w") as pipe:
            json.dump(answer, pipe)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        answer = json.load(pipe)
    os.waitpid(pid, 0)
    return answer


def main() -> None:
    mode, cases = sys.argv[1], json.load(sys.stdin)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # SGLang prints: keep the answer alone on stdout
    pretend()
    sys.meta_path.insert(0, _AbsentKernels())
    from sglang.srt import server_args  # noqa: F401

    if mode == "build":
        from sglang.srt.models import registry  # noqa: F401  imports every model: once, before the forks

    pretend_memory()
    answers = [resolve_case(case) if mode == "resolve" else in_child(case) for case in cases]
    json.dump(answers, out)
    out.flush()


if __name__ == "__main__":
    main()
