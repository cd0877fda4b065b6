"""The model of configs/*.toml with top-k routing as its best PyTorch user would write it for CPUs.

One matrix product for queries, keys and values and one for gate and up; tokens sorted by expert once and one product per
non-empty expert; scaled_dot_product_attention; rms_norm; fused AdamW. The sort's gradient is the inverse permutation, not
a scatter with atomics. Names of checkpoint tensors are taken to this layout by load().
"""
import contextlib
import math

import torch
import torch.nn.functional as F
from torch import nn


class Permute(torch.autograd.Function):
    """rows[t] -> rows[order[i] // k]; backward sums each token's k rows."""

    @staticmethod
    def forward(ctx, rows, order, k):
        ctx.save_for_backward(order)
        ctx.k = k
        return rows.index_select(0, order // k if k > 1 else order)

    @staticmethod
    def backward(ctx, gradient):
        (order,) = ctx.saved_tensors
        rows = gradient.index_select(0, inverse(order))
        return (rows.view(-1, ctx.k, rows.shape[1]).sum(1) if ctx.k > 1 else rows), None, None


def inverse(order):
    places = torch.empty_like(order)
    places[order] = torch.arange(order.numel())
    return places


class Float32Product(torch.autograd.Function):
    """x W^T of bfloat16 rows and a float32 weight, multiplied in float32: what a processor without bfloat16 does well."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return F.linear(x.float(), weight).to(x.dtype)

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        dy = gradient.flatten(0, -2).float()
        return (dy @ weight).to(x.dtype).view_as(x), dy.t() @ x.flatten(0, -2).float()


linear = F.linear


def attention(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def float32_attention(q, k, v):
    return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), is_causal=True).to(q.dtype)



def matrix(out, inputs):
    return nn.Parameter(torch.empty(out, inputs))


class Ffn(nn.Module):
    def __init__(self, hidden, width):
        super().__init__()
        self.gate_up = matrix(2 * width, hidden)
        self.down = matrix(hidden, width)

    def forward(self, x):
        gate, up = linear(x, self.gate_up).chunk(2, -1)
        return linear(F.silu(gate) * up, self.down)


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        hidden = config["hidden_size"]
        self.heads = config["num_attention_heads"]
        self.eps = config["rms_norm_eps"]
        self.norm = nn.Parameter(torch.ones(hidden))
        self.qkv = matrix(3 * hidden, hidden)
        self.output = matrix(hidden, hidden)

    def forward(self, x, cosines, sines):
        h = F.rms_norm(x, x.shape[-1:], self.norm.to(x.dtype), self.eps)
        qkv = linear(h, self.qkv).unflatten(-1, (3, self.heads, -1))
        low, high = qkv[:, :, :2].chunk(2, -1)
        queries_keys = torch.cat((low * cosines - high * sines, high * cosines + low * sines), -1)
        q, k = queries_keys.permute(2, 0, 3, 1, 4)
        attended = attention(q, k, qkv[:, :, 2].transpose(1, 2))
        return x + linear(attended.transpose(1, 2).flatten(2), self.output)


class Dense(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.eps = config["rms_norm_eps"]
        self.norm = nn.Parameter(torch.ones(config["hidden_size"]))
        self.ffn = Ffn(config["hidden_size"], config["intermediate_size"])

    def forward(self, x):
        return x + self.ffn(F.rms_norm(x, x.shape[-1:], self.norm.to(x.dtype), self.eps))


class SubLayer(nn.Module):
    """x + c0 * sum of g_i FFN_i(norm(x)) + c1 * FFN_shared(norm(x)); the router in float32. Keeps its balancing loss."""

    def __init__(self, config):
        super().__init__()
        hidden, width = config["hidden_size"], config["intermediate_size"] // config["grain_level"]
        self.experts_count, self.k, self.eps = config["num_experts"], config["moe_top_k"], config["rms_norm_eps"]
        self.norm = nn.Parameter(torch.ones(hidden))
        self.router = matrix(self.experts_count + 2, hidden)  # experts, then the mix
        self.mix_bias = nn.Parameter(torch.zeros(2))
        self.shared = Ffn(hidden, width)
        self.experts = nn.ModuleList(Ffn(hidden, width) for _ in range(self.experts_count))
        self.balance = None

    def forward(self, x):
        h = F.rms_norm(x, x.shape[-1:], self.norm.to(x.dtype), self.eps)
        with torch.autocast("cpu", enabled=False):
            logits, mix = F.linear(h.float(), self.router).split((self.experts_count, 2), -1)
            probabilities = logits.softmax(-1)
            gates, chosen = probabilities.topk(self.k, -1)
            gates = gates / gates.sum(-1, keepdim=True)
            routed_share, shared_share = (mix + self.mix_bias).softmax(-1).split(1, -1)
        counts = torch.bincount(chosen.flatten(), minlength=self.experts_count)
        share = counts / counts.sum()
        self.balance = self.experts_count * (share * probabilities.mean(0)).sum()

        order = chosen.flatten().argsort(stable=True)
        rows = Permute.apply(h, order, self.k).split(counts.tolist())
        y = torch.cat([ffn(part) for ffn, part in zip(self.experts, rows) if part.shape[0] > 0])
        y = Permute.apply(y, inverse(order), 1).view(-1, self.k, x.shape[-1])
        weights = (gates * routed_share).to(y.dtype)
        routed = (y * weights.unsqueeze(-1)).sum(1)
        return x + routed + shared_share.to(x.dtype) * self.shared(h)


class Peer(nn.Module):
    """A LLaMA backbone whose blocks' FFNs are dense or one or two sub-layers."""

    def __init__(self, config, length):
        super().__init__()
        hidden = config["hidden_size"]
        self.eps = config["rms_norm_eps"]
        self.embedding = nn.Embedding(config["vocab_size"], hidden)
        self.blocks = nn.ModuleList()
        for block in range(config["num_hidden_layers"]):
            moe = config["sub_layers"] > 0 and block % config["expert_interval"] == 0
            ffn = nn.Sequential(*(SubLayer(config) for _ in range(config["sub_layers"]))) if moe else Dense(config)
            self.blocks.append(nn.ModuleList((Attention(config), ffn)))
        self.norm = nn.Parameter(torch.ones(hidden))
        self.head = matrix(config["vocab_size"], hidden)
        head_dim = hidden // config["num_attention_heads"]
        angles = torch.outer(torch.arange(length), config["rope_theta"] ** -(torch.arange(0, head_dim, 2) / head_dim))
        self.register_buffer("cosines", angles.cos()[:, None, None])  # [length, 1, 1, head_dim / 2]
        self.register_buffer("sines", angles.sin()[:, None, None])

    def sub_layers(self):
        return [module for module in self.modules() if isinstance(module, SubLayer)]

    def forward(self, ids, targets, dtype):
        """The mean loss of a batch [sequences, length], and the load-balancing loss of all sub-layers."""
        x = self.embedding(ids).to(dtype)
        cosines, sines = self.cosines.to(dtype), self.sines.to(dtype)
        for mixer, ffn in self.blocks:
            x = mixer(x, cosines, sines)
            x = ffn(x.flatten(0, 1)).view_as(x)
        h = F.rms_norm(x, x.shape[-1:], self.norm.to(x.dtype), self.eps)
        logits = linear(h, self.head).flatten(0, 1).float()
        return F.cross_entropy(logits, targets.flatten()), sum(s.balance for s in self.sub_layers())

    @torch.no_grad()
    def load(self, tensors):
        """From the named tensors of a checkpoint of ours; every one must find its place."""
        left = dict(tensors)

        def take(parameter, *names):
            parameter.copy_(torch.cat([left.pop(name) for name in names]).view_as(parameter))

        def take_ffn(ffn, prefix):
            take(ffn.gate_up, prefix + "gate_proj.weight", prefix + "up_proj.weight")
            take(ffn.down, prefix + "down_proj.weight")

        take(self.embedding.weight, "model.embed_tokens.weight")
        for i, (mixer, ffn) in enumerate(self.blocks):
            at = "model.layers.%d." % i
            take(mixer.norm, at + "input_layernorm.weight")
            take(mixer.qkv, *(at + "self_attn.%s_proj.weight" % name for name in "qkv"))
            take(mixer.output, at + "self_attn.o_proj.weight")
            if isinstance(ffn, Dense):
                take(ffn.norm, at + "post_attention_layernorm.weight")
                take_ffn(ffn.ffn, at + "mlp.")
                continue
            for g, sub_layer in enumerate(ffn):
                group = str(g) if len(ffn) > 1 else ""
                take(sub_layer.norm, at + ("mlp_layernorm" if g else "post_attention_layernorm") + ".weight")
                take(sub_layer.router, at + "wg%s.weight" % group, at + "coefficient%s.weight" % group)
                take(sub_layer.mix_bias, at + "coefficient%s.bias" % group)
                take_ffn(sub_layer.shared, at + "res_mlp%s." % group)
                for e, expert in enumerate(sub_layer.experts):
                    take_ffn(expert, at + "mlp%s.%d." % (group, e))
        take(self.norm, "model.norm.weight")
        take(self.head, "lm_head.weight")
        if left:
            raise ValueError("tensors without a place: " + ", ".join(sorted(left)))


@contextlib.contextmanager
def float32_products():
    """Makes every matrix product of bfloat16 rows one in float32, those within attention too."""
    global linear, attention  # the names that the model calls
    before = linear, attention
    linear, attention = Float32Product.apply, float32_attention
    try:
        yield
    finally:
        linear, attention = before


# How a dtype may be written: bfloat16 by autocast, with bfloat16 weights (beside float32 masters), or with rows in
# bfloat16 but products in float32.
WAYS = {"float32": ["float32"], "bfloat16": ["float32 products", "autocast", "bfloat16 weights"]}


def computing(way):
    """The context in which a model computes, forward, in one of WAYS."""
    if way == "autocast":
        return torch.autocast("cpu", torch.bfloat16)
    return float32_products() if way == "float32 products" else contextlib.nullcontext()


def lower(model):
    """The model's matrices and norms become bfloat16, its routers stay float32."""
    for name, parameter in model.named_parameters():
        if "router" not in name and "mix_bias" not in name:
            parameter.data = parameter.data.to(torch.bfloat16)


class Trainer:
    """Steps of training on one batch, in one of WAYS."""

    def __init__(self, model, train, way):
        self.model, self.train, self.way, self.step_number = model, train, way, 0
        self.copies = []
        if way == "bfloat16 weights":
            before = [nn.Parameter(p.detach().clone()) for p in model.parameters()]
            lower(model)
            self.copies = list(zip(before, model.parameters()))
        masters = [master for master, _ in self.copies] or list(model.parameters())
        names = [name for name, _ in model.named_parameters()]
        decayed = [p for name, p in zip(names, masters) if "norm" not in name and "bias" not in name]
        others = [p for name, p in zip(names, masters) if "norm" in name or "bias" in name]
        self.masters = masters
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": train["weight_decay"]}, {"params": others, "weight_decay": 0.0}],
            betas=(train["beta1"], train["beta2"]), eps=train["eps"], fused=True)

    def learning_rate(self):
        train, step = self.train, self.step_number
        if step < train["warmup_steps"]:
            return train["learning_rate"] * (step + 1) / train["warmup_steps"]
        progress = min(1, (step - train["warmup_steps"]) / max(1, train["steps"] - train["warmup_steps"]))
        low = train["min_learning_rate"]
        return low + (train["learning_rate"] - low) * 0.5 * (1 + math.cos(math.pi * progress))

    def forward(self, ids, targets):
        with computing(self.way):
            return self.model(ids, targets, torch.float32 if self.way == "float32" else torch.bfloat16)

    def step(self, ids, targets):
        """Returns the loss before the step."""
        loss, balance = self.forward(ids, targets)
        (loss + self.train["balance_loss"] * balance).backward()
        for master, copy in self.copies:
            master.grad = None if copy.grad is None else copy.grad.float()
        torch.nn.utils.clip_grad_norm_(self.masters, self.train["clip_norm"], foreach=True)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self.optimizer.step()
        with torch.no_grad():
            for master, copy in self.copies:
                copy.copy_(master)
        self.model.zero_grad(set_to_none=True)
        self.step_number += 1
        return loss.item()
