"""The tiny model's shape: DeepSeek-V3's architecture with everything R1 uses, small enough to train on two cores.

Every parallel layout the project tests divides it: 4 heads and 8 experts by 2 or 4, all widths by 64.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

BEGIN, END, PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
USER, ASSISTANT = "<｜User｜>", "<｜Assistant｜>"
THINK, END_THINK = "<think>", "</think>"

CONTEXT = 4096


def config(vocabulary: int) -> dict[str, Any]:
    """config.json, in the checkpoint's own field names (the published R1 configuration's, made small)."""
    return {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        "vocab_size": vocabulary,
        "hidden_size": 128,
        "intermediate_size": 384,
        "moe_intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "first_k_dense_replace": 1,
        "moe_layer_freq": 1,
        "n_routed_experts": 8,
        "n_shared_experts": 1,
        "num_experts_per_tok": 4,
        "n_group": 4,
        "topk_group": 2,
        "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",
        "norm_topk_prob": True,
        "routed_scaling_factor": 2.5,
        "q_lora_rank": 64,
        "kv_lora_rank": 64,
        "qk_nope_head_dim": 32,
        "qk_rope_head_dim": 16,
        "v_head_dim": 32,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "initializer_range": 0.02,
        "max_position_embeddings": CONTEXT,
        "rope_theta": 10000,
        "rope_scaling": {
            "type": "yarn",
            "factor": 4,
            "original_max_position_embeddings": CONTEXT // 4,
            "beta_fast": 32,
            "beta_slow": 1,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
        },
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": False,
        "num_nextn_predict_layers": 0,
        "ep_size": 1,
        "use_cache": True,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
        "torch_dtype": "bfloat16",
    }


def checkpoint(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The model's tensors under the published checkpoint's names: one tensor per expert and projection, bf16.

    Transformers stacks a layer's experts as [expert, gate rows then up rows, hidden]; published checkpoints do not.
    The routing bias stays float32, as in R1's checkpoint, with values that bf16 holds exactly.
    """
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in model.state_dict().items():
        value = tensor.detach().to(torch.bfloat16)
        base, _, leaf = name.rpartition(".")
        if leaf == "gate_up_proj":
            for expert, rows in enumerate(value):
                gate, up = rows.chunk(2)
                tensors[f"{base}.{expert}.gate_proj.weight"] = gate.clone()
                tensors[f"{base}.{expert}.up_proj.weight"] = up.clone()
        elif leaf == "down_proj" and base.endswith("experts"):
            for expert, rows in enumerate(value):
                tensors[f"{base}.{expert}.down_proj.weight"] = rows.clone()
        elif leaf == "e_score_correction_bias":
            tensors[name] = value.float()
        else:
            tensors[name] = value.contiguous()
    return tensors


def save_checkpoint(model: torch.nn.Module, directory: Path) -> None:
    file = directory / "model.safetensors"
    save_file(checkpoint(model), file, metadata={"format": "pt"})
    file.chmod(0o644)  # safetensors makes it private; a pod may run as another user
