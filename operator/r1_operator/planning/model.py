"""A model as its `config.json` describes it: the numbers that memory, layout and speed depend on, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Quantization(StrEnum):
    """How the checkpoint stores its linear layers."""

    BF16 = "BF16"
    FP8 = "FP8"  # e4m3, 128×128 block scales
    W4AFP8 = "W4AFP8"  # routed experts int4 with a scale per 128 inputs, everything else as FP8


@dataclass(frozen=True, slots=True)
class MlaMoe:
    """DeepSeek V3's architecture: multi-head latent attention and routed experts. Sizes are counts of elements."""

    hidden: int
    layers: int
    dense_layers: int
    heads: int
    q_lora: int
    kv_lora: int
    nope: int
    rope: int
    v_head: int
    intermediate: int
    expert_intermediate: int
    routed_experts: int
    shared_experts: int
    experts_per_token: int
    vocab: int
    context: int
    rope_rows: int
    draft_layers: int

    @property
    def moe_layers(self) -> int:
        return self.layers - self.dense_layers

    @property
    def expert_elements(self) -> int:
        """Weights of one routed expert: gate, up and down."""
        return 3 * self.hidden * self.expert_intermediate


@dataclass(frozen=True, slots=True)
class Dense:
    """Llama's and Qwen2's architecture: grouped-query attention and a gated MLP. Sizes are counts of elements."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    context: int
    rope_rows: int
    qkv_bias: bool
    tied_embedding: bool


Architecture = MlaMoe | Dense


@dataclass(frozen=True, slots=True)
class Model:
    """A known model. `source` says where the configuration comes from. `class_name` and `figures` are as config.json
    has them: the architecture's name, and the whole numbers that make a model another one. Parsers are SGLang's, by
    name: what tells thoughts from answers, and what finds tool calls (None: nothing does)."""

    name: str
    architecture: Architecture
    quantization: Quantization
    source: str = ""
    class_name: str = ""
    figures: tuple[tuple[str, int], ...] = ()
    reasoning_parser: str = "deepseek-r1"
    tool_call_parser: str | None = None


DRAFT_LAYERS = "num_nextn_predict_layers"
"""Only a plan with multi-token prediction needs it."""
_FIGURES = (
    *("hidden_size", "num_hidden_layers", "first_k_dense_replace", "num_attention_heads", "num_key_value_heads"),
    *("head_dim", "q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"),
    *("intermediate_size", "moe_intermediate_size", "n_routed_experts", "n_shared_experts", "num_experts_per_tok"),
    *("vocab_size", DRAFT_LAYERS),
)
QUANTIZATION_CONFIGS: Mapping[Quantization, tuple[str | None, tuple[int, int] | None]] = {
    Quantization.BF16: (None, None),
    Quantization.FP8: ("fp8", (128, 128)),
    Quantization.W4AFP8: ("w4afp8", None),
}
"""quant_method and weight_block_size of config.json's quantization_config; None: it has none, or any will do."""


class ModelConfigError(ValueError):
    """A `config.json` that cannot be planned. The message names the key, the reason and the remedy."""


def read_model(name: str, config: Mapping[str, object], source: str = "") -> Model:
    """Read the values of a Hugging Face `config.json` already parsed.

    Raises ModelConfigError for an architecture or a quantization that the planner has no memory form for, and for a
    missing or senseless key.
    """
    names = config.get("architectures")
    architecture = names[0] if isinstance(names, list) and names else None
    readers: Mapping[str, Callable[[str, Mapping[str, object]], Architecture]] = {
        "DeepseekV3ForCausalLM": _mla_moe,
        "Qwen2ForCausalLM": _dense,
        "LlamaForCausalLM": _dense,
    }
    reader = readers.get(str(architecture))
    if reader is None:
        raise ModelConfigError(
            f"{name}: architectures is {architecture!r}; the planner has memory forms for DeepseekV3ForCausalLM, "
            "Qwen2ForCausalLM and LlamaForCausalLM only"
        )
    figures = tuple((key, value) for key in _FIGURES if isinstance(value := config.get(key), int))
    return Model(name, reader(name, config), _quantization(name, config), source, str(architecture), figures)


def _mla_moe(name: str, config: Mapping[str, object]) -> MlaMoe:
    if config.get("index_topk") is not None:
        raise ModelConfigError(
            f"{name}: index_topk is set (sparse attention, V3.2): its indexer has another memory form"
        )
    count = _Counts(name, config)
    if config.get("moe_layer_freq", 1) != 1:
        raise ModelConfigError(f"{name}: moe_layer_freq must be 1; every layer after the dense ones has experts")
    layers, dense = count("num_hidden_layers"), count("first_k_dense_replace", least=0)
    if dense > layers:
        raise ModelConfigError(f"{name}: first_k_dense_replace is {dense}, more than num_hidden_layers {layers}")
    return MlaMoe(
        hidden=count("hidden_size"),
        layers=layers,
        dense_layers=dense,
        heads=count("num_attention_heads"),
        q_lora=count("q_lora_rank"),
        kv_lora=count("kv_lora_rank"),
        nope=count("qk_nope_head_dim"),
        rope=count("qk_rope_head_dim"),
        v_head=count("v_head_dim"),
        intermediate=count("intermediate_size"),
        expert_intermediate=count("moe_intermediate_size"),
        routed_experts=count("n_routed_experts"),
        shared_experts=count("n_shared_experts", least=0),
        experts_per_token=count("num_experts_per_tok"),
        vocab=count("vocab_size"),
        context=count("max_position_embeddings"),
        rope_rows=_rope_rows(config, count("max_position_embeddings")),
        draft_layers=count("num_nextn_predict_layers", least=0, default=0),
    )


def _dense(name: str, config: Mapping[str, object]) -> Dense:
    count = _Counts(name, config)
    hidden, heads = count("hidden_size"), count("num_attention_heads")
    context = count("max_position_embeddings")
    return Dense(
        hidden=hidden,
        layers=count("num_hidden_layers"),
        heads=heads,
        kv_heads=count("num_key_value_heads", default=heads),
        head_dim=count("head_dim", default=hidden // heads),
        intermediate=count("intermediate_size"),
        vocab=count("vocab_size"),
        context=context,
        rope_rows=context,
        # Qwen2's query, key and value always carry a bias; Llama's follow attention_bias.
        qkv_bias=config.get("model_type") == "qwen2" or config.get("attention_bias") is True,
        tied_embedding=config.get("tie_word_embeddings") is True,
    )


def _quantization(name: str, config: Mapping[str, object]) -> Quantization:
    section = config.get("quantization_config")
    if section is None:
        return Quantization.BF16
    method = section.get("quant_method") if isinstance(section, Mapping) else section
    block = section.get("weight_block_size") if isinstance(section, Mapping) else None
    for quantization, (known, known_block) in QUANTIZATION_CONFIGS.items():
        if method is not None and method == known and (known_block is None or block == list(known_block)):
            return quantization
    raise ModelConfigError(
        f"{name}: quantization_config has quant_method {method!r} with weight_block_size {block!r}; "
        "the planner knows fp8 with [128, 128] blocks, w4afp8, and none (BF16)"
    )


def _rope_rows(config: Mapping[str, object], context: int) -> int:
    """Rows of the cached rotary table: YaRN stretches the original context by its factor."""
    scaling = config.get("rope_scaling")
    if not isinstance(scaling, Mapping):
        return context
    original, factor = scaling.get("original_max_position_embeddings"), scaling.get("factor")
    if isinstance(original, int) and isinstance(factor, int | float):
        return max(context, int(original * factor))
    return context


@dataclass(frozen=True, slots=True)
class _Counts:
    """Reads whole numbers out of a configuration, with an error that names the key."""

    name: str
    config: Mapping[str, object]

    def __call__(self, key: str, *, least: int = 1, default: int | None = None) -> int:
        value = self.config.get(key)
        if value is None:
            if default is not None:
                return default
            raise ModelConfigError(f"{self.name}: config.json lacks {key}, which its architecture needs")
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ModelConfigError(f"{self.name}: {key} must be a whole number of at least {least}, not {value!r}")
        return value
