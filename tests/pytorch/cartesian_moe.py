"""The models of the CartesianMoE paper in plain PyTorch, opened from a checkpoint directory (docs/formats.md).

It is written from the paper's equations, for reading and for tests, not for speed: every expert sees every token, and
a gate of zero takes out what was not chosen. Modules bear the names of the checkpoint's tensors, so that
load_state_dict() checks them all. Needs nothing of this repository:

    model = load("runs/quickstart/checkpoints/step-00001000")
    logits = model(token_ids).logits            # [sequences, length] -> [sequences, length, vocabulary]
"""

import dataclasses
import json
import pathlib

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional


# Keys of config.json that do not change the mathematics, or only from values that `cartesian` refuses.
PASSED_OVER = {
    "architectures", "bos_token_id", "eos_token_id", "hidden_act", "initial_moe_layer", "initializer_range",
    "interleave_moe_layer", "model_type", "num_key_value_heads", "pad_token_id", "pretraining_tp", "torch_dtype",
    "transformers_version", "use_cache",
}


@dataclasses.dataclass
class Config:
    """The keys of config.json that the mathematics depends on; the defaults are those of absent keys."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    use_moe: bool = False
    num_experts: int = 0
    moe_top_k: int = 0  # k; -1: by top-p; -k: k by the hash table
    moe_top_p: float = 0.4
    c2_fine_grain: bool = False  # CartesianMoE: two routed sub-layers
    fine_grain: bool = False  # conventional, with finer experts
    grain_level: int = 1
    use_residual: bool = False  # a shared expert and a learned mix
    expert_interval: int = 2

    @classmethod
    def read(cls, path):
        values = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        known = {field.name for field in dataclasses.fields(cls)}
        others = {key for key, value in values.items() if value and key not in known | PASSED_OVER}
        if others:  # they may say something about the mathematics
            raise ValueError(f"{path}: {', '.join(sorted(others))}: not known here")
        return cls(**{key: value for key, value in values.items() if key in known and value is not None})

    def is_hashed(self):
        return self.use_moe and self.moe_top_k < -1

    def expert_width(self):
        return self.intermediate_size // self.grain_level


@dataclasses.dataclass
class Output:
    logits: torch.Tensor  # [sequences, length, vocabulary]
    balance_loss: torch.Tensor  # summed over sub-layers, without a coefficient
    smallest_gap: float  # between any token's last chosen and first left out expert: below rounding, choices are chance


class RmsNorm(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(config.hidden_size))
        self.eps = config.rms_norm_eps

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)


class Ffn(nn.Module):
    """W_down( silu(W_gate h) * (W_up h) )."""

    def __init__(self, hidden, width):
        super().__init__()
        self.gate_proj = nn.Linear(hidden, width, bias=False)
        self.up_proj = nn.Linear(hidden, width, bias=False)
        self.down_proj = nn.Linear(width, hidden, bias=False)

    def forward(self, h):
        return self.down_proj(functional.silu(self.gate_proj(h)) * self.up_proj(h))


def rotate(x, theta):
    """LLaMA's rotary embedding of [..., length, head_dim]: components i and i + half turn together."""
    length, dim = x.shape[-2:]
    frequencies = theta ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angles = torch.outer(torch.arange(length, dtype=torch.float64), frequencies)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.heads = config.num_attention_heads
        self.theta = config.rope_theta
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            setattr(self, name, nn.Linear(config.hidden_size, config.hidden_size, bias=False))

    def forward(self, h):
        sequences, length, hidden = h.shape

        def by_head(x):
            return x.view(sequences, length, self.heads, hidden // self.heads).transpose(1, 2)

        q, k, v = by_head(self.q_proj(h)), by_head(self.k_proj(h)), by_head(self.v_proj(h))
        scores = rotate(q, self.theta) @ rotate(k, self.theta).transpose(-1, -2) / (hidden // self.heads) ** 0.5
        later = torch.ones(length, length, dtype=torch.bool).triu(1)
        attended = scores.masked_fill(later, -torch.inf).softmax(-1) @ v
        return self.o_proj(attended.transpose(1, 2).reshape(sequences, length, hidden))


def gates_of(p, config):
    """Each expert's gate, 0 unless it was chosen, whether it was, and the smallest gap of Output."""
    sorted_p, order = p.sort(dim=-1, descending=True)
    if config.moe_top_k == -1:
        # Experts in order of probability until their sum exceeds the threshold; the one that crosses is in.
        sums = sorted_p.cumsum(-1)
        taken = sums - sorted_p <= config.moe_top_p
        gaps = [(sums - config.moe_top_p).abs().min()]
    else:
        k = abs(config.moe_top_k)
        taken = torch.arange(p.shape[-1]).expand_as(p) < k
        gaps = []
    nearest = (sorted_p[..., :-1] - sorted_p[..., 1:])[taken[..., :-1] & ~taken[..., 1:]]
    gaps += [nearest.min()] if nearest.numel() > 0 else []
    chosen = torch.zeros_like(taken).scatter(-1, order, taken)
    gates = torch.where(chosen, p, 0)
    if config.moe_top_k != -1 and k > 1:
        gates = gates / gates.sum(-1, keepdim=True)
    return gates, chosen, min((gap.item() for gap in gaps), default=1.0)


class SharedExpert(nn.Module):
    """A fine-grained layer's: the mean of several FFNs as wide as the routed ones."""

    def __init__(self, config):
        super().__init__()
        self.parts = config.grain_level
        for i in range(self.parts):
            setattr(self, f"mlp{i}", Ffn(config.hidden_size, config.expert_width()))

    def forward(self, h):
        return sum(getattr(self, f"mlp{i}")(h) for i in range(self.parts)) / self.parts


class Block(nn.Module):
    """Attention, then a dense FFN, or one routed sub-layer, or A and B of a Cartesian layer."""

    def __init__(self, config, index):
        super().__init__()
        self.config = config
        self.input_layernorm = RmsNorm(config)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RmsNorm(config)
        self.numbers = ()  # what the names of each sub-layer's modules end in
        if not config.use_moe or index % config.expert_interval != 0:
            self.mlp = Ffn(config.hidden_size, config.intermediate_size)
            return
        if config.c2_fine_grain:
            self.mlp_layernorm = RmsNorm(config)
        self.numbers = ("0", "1") if config.c2_fine_grain else ("",)
        for number in self.numbers:
            self.add_sub_layer(number)

    def add_sub_layer(self, number):
        config, hidden, width = self.config, self.config.hidden_size, self.config.expert_width()
        self.add_module(f"mlp{number}", nn.ModuleList(Ffn(hidden, width) for _ in range(config.num_experts)))
        if not config.is_hashed():
            self.add_module(f"wg{number}", nn.Linear(hidden, config.num_experts, bias=False))
        if config.use_residual:
            self.add_module(f"coefficient{number}", nn.Linear(hidden, 2))
            self.add_module(f"res_mlp{number}", SharedExpert(config) if config.fine_grain else Ffn(hidden, width))

    def forward(self, x, hash_logits, routed):
        x = x + self.self_attn(self.input_layernorm(x))
        if not self.numbers:
            return x + self.mlp(self.post_attention_layernorm(x))
        for number in self.numbers:
            norm = self.mlp_layernorm if number == "1" else self.post_attention_layernorm
            x = x + self.sub_layer(number, norm(x), hash_logits, routed)
        return x

    def sub_layer(self, number, h, hash_logits, routed):
        config = self.config
        logits = hash_logits if config.is_hashed() else self.get_submodule(f"wg{number}")(h)
        p = logits.softmax(-1)
        gates, chosen, gap = gates_of(p, config)
        y = sum(gates[..., i : i + 1] * expert(h) for i, expert in enumerate(self.get_submodule(f"mlp{number}")))
        if config.use_residual:
            c = self.get_submodule(f"coefficient{number}")(h).softmax(-1)
            y = c[..., :1] * y + c[..., 1:] * self.get_submodule(f"res_mlp{number}")(h)
        share = chosen.flatten(0, -2).sum(0) / chosen.sum()
        routed.append((config.num_experts * (share * p.flatten(0, -2).mean(0)).sum(), gap))
        return y


class Backbone(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        if config.is_hashed():
            self.router_tokens = nn.Embedding(config.vocab_size, config.num_experts)
            self.router_tokens.weight.requires_grad_(False)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.num_hidden_layers))
        self.norm = RmsNorm(config)


class CartesianMoe(nn.Module):
    """Any of the paper's systems: what config.json says."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.model = Backbone(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def forward(self, ids):
        x = self.model.embed_tokens(ids)
        hash_logits = self.model.router_tokens(ids) if self.config.is_hashed() else None
        routed = []
        for block in self.model.layers:
            x = block(x, hash_logits, routed)
        logits = self.lm_head(self.model.norm(x))
        balance_loss = sum((loss for loss, _ in routed), start=torch.zeros((), dtype=logits.dtype))
        return Output(logits, balance_loss, min((gap for _, gap in routed), default=1.0))


def load(directory, dtype=torch.float32):
    """The model of a checkpoint directory: one file of tensors or several, of any floating-point dtype."""
    directory = pathlib.Path(directory)
    index = directory / "model.safetensors.index.json"
    files = ["model.safetensors"]
    if index.exists():
        files = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    tensors = {}
    for file in files:
        tensors.update(load_file(directory / file))
    model = CartesianMoe(Config.read(directory / "config.json")).to(dtype)
    model.load_state_dict(tensors)
    return model
