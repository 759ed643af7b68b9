"""What SGLang 0.5.23 lacks on a CPU without its kernel package. Import hooks: nothing is imported before SGLang does.

Each patch says what breaks without it. Most go away with a CPU build of sgl-kernel.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

from r1_engine.import_hooks import after_import


class _AbsentKernels(importlib.abc.Loader):
    """`sgl_kernel` as a package whose functions exist and fail only when called: SGLang imports names from it."""

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        module = types.ModuleType(spec.name)
        module.__path__ = []
        module.__dict__["__version__"] = "0.4.10"  # SGLang asserts a least version

        def missing(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)

            def call(*_: Any, **__: Any) -> Any:
                raise NotImplementedError(f"{spec.name}.{name} needs a GPU; CPU mode has no kernel package")

            return call

        module.__dict__["__getattr__"] = missing
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        return None


def _register_mla(module: Any) -> None:
    """DeepSeek's attention picks its path by backend name; torch_native is not in the table."""
    module.AttentionBackendRegistry.register("torch_native", lambda *_: module.AttnForwardMethod.MLA)


def _fill_value_for_idle_batches(module: Any) -> None:
    """With DP attention an idle rank runs a padded batch and asks the backend for a sequence length."""
    module.TorchNativeAttnBackend.get_cpu_graph_seq_len_fill_value = lambda self: 1


def _reduce_scatter_over_gloo(module: Any) -> None:
    """ep = attention DP = tp takes reduce_scatterv, which wants NCCL; SGLang's deterministic variant runs on gloo."""
    original = module.GroupCoordinator.reduce_scatterv

    def reduce_scatterv(self: Any, input_: Any, output: Any = None, sizes: Any = None) -> Any:
        if input_.is_cpu:
            return self._deterministic_reduce_scatterv(input_, output, sizes)
        return original(self, input_, output, sizes)

    module.GroupCoordinator.reduce_scatterv = reduce_scatterv


def _local_experts_only(module: Any) -> None:
    """With expert parallelism the ids of other ranks' experts are -1, which the native MoE path cannot index."""
    import torch

    original = module.moe_forward_native
    linear, silu = torch.nn.functional.linear, torch.nn.functional.silu

    def moe_forward_native(layer: Any, x: Any, topk_output: Any, moe_runner_config: Any) -> Any:
        weights, ids, _ = topk_output
        if not bool((ids < 0).any()):
            return original(layer, x, topk_output, moe_runner_config)
        out = torch.zeros_like(x)
        for expert in range(layer.w13_weight.shape[0]):
            token, choice = (ids == expert).nonzero(as_tuple=True)
            if token.numel():
                gate, up = linear(x[token], layer.w13_weight[expert]).chunk(2, dim=-1)
                hidden = linear(silu(gate) * up, layer.w2_weight[expert])
                out.index_add_(0, token, (hidden * weights[token, choice].unsqueeze(-1)).to(out.dtype))
        return out

    module.moe_forward_native = moe_forward_native


def _short_idle_sleep(module: Any) -> None:
    """--sleep-on-idle waits up to 1 s. With DP attention every rank must take part in each step, so a request to one
    rank would wait for the others to wake; 0.1 s is unnoticed and still costs almost nothing."""

    def maybe_sleep(self: Any) -> None:
        self.poller.poll(100)

    module.IdleSleeper.maybe_sleep = maybe_sleep


def _wait_for_requests(module: Any) -> None:
    """The DP controller asks its socket without pause and burns a whole core, of which a trial machine may have two."""

    def event_loop(self: Any) -> None:
        while True:
            self.soft_watchdog.feed()
            if self.recv_from_tokenizer.poll(500):
                self._request_dispatcher(module.sock_recv(self.recv_from_tokenizer))

    module.DataParallelController.event_loop = event_loop


_AFTER_IMPORT: dict[str, Callable[[Any], None]] = {
    "sglang.srt.models.deepseek_common.attention_backend_handler": _register_mla,
    "sglang.srt.layers.attention.torch_native_backend": _fill_value_for_idle_batches,
    "sglang.srt.distributed.parallel_state": _reduce_scatter_over_gloo,
    "sglang.srt.layers.moe.fused_moe_native": _local_experts_only,
    "sglang.srt.managers.scheduler_components.idle_sleeper": _short_idle_sleep,
    "sglang.srt.managers.data_parallel_controller": _wait_for_requests,
}


class _KernelFinder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name == "sgl_kernel.scalar_type":
            return None  # SGLang has a replacement of its own for this one
        if name == "sgl_kernel" or name.startswith("sgl_kernel."):
            return importlib.machinery.ModuleSpec(name, _AbsentKernels(), is_package=True)
        return None


def install() -> None:
    """Idempotent."""
    if not any(isinstance(finder, _KernelFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _KernelFinder())
    for name, patch in _AFTER_IMPORT.items():
        after_import(name, patch)
