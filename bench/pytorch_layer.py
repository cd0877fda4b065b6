#!/usr/bin/env python3
"""A CartesianMoE layer of MoE-Base's size, forward and backward, against the same layer in PyTorch, in paired rounds.

  bash tests/python_env.sh bench/pytorch_layer.py build/release/bench/layer_bench [--rounds 5] [--tokens 1024]
      [--threads 1] [--dtypes float32 bfloat16]

Prints for each dtype the median over rounds of the ratio of times, and what layer_bench says about the layer's matrix
products alone. The peer is timed in every way it can be written (bench/pytorch_peer.py); the fastest is compared.
"""
import argparse
import statistics
import subprocess
import time

import torch
from torch import nn

from pytorch_peer import WAYS, SubLayer, computing, lower

CONFIG = {"hidden_size": 768, "intermediate_size": 3072, "grain_level": 2, "num_experts": 16, "moe_top_k": 2,
          "rms_norm_eps": 1e-6}


class Layer:
    def __init__(self, way, tokens):
        self.way = way
        self.model = nn.Sequential(SubLayer(CONFIG), SubLayer(CONFIG))
        with torch.no_grad():
            for parameter in self.model.parameters():
                if parameter.dim() == 2:
                    parameter.uniform_(-0.035, 0.035)
        if way == "bfloat16 weights":
            lower(self.model)
        dtype = torch.float32 if way == "float32" else torch.bfloat16
        self.x = (2 * torch.rand(tokens, CONFIG["hidden_size"]) - 1).to(dtype).requires_grad_()
        self.dy = (2 * torch.rand(tokens, CONFIG["hidden_size"]) - 1).to(dtype)
        self.gradients = []

    def seconds(self):
        self.model.zero_grad(set_to_none=True)
        self.x.grad = None
        start = time.perf_counter()
        with computing(self.way):
            y = self.model(self.x)
        y.backward(self.dy)
        # Ours are float32 sums. Masters of bfloat16 weights need them too (pytorch_peer.Trainer does the same).
        self.gradients = [p.grad.float() for p in self.model.parameters() if p.grad is not None]
        return time.perf_counter() - start


def ours(args, dtype):
    """Median seconds of a few rounds, and the share of them that the products alone would take."""
    output = subprocess.run([args.layer_bench, "--tokens", str(args.tokens), "--threads", str(args.threads), "--rounds",
                             "3", "--dtypes", dtype], check=True, stdout=subprocess.PIPE, text=True).stdout
    words = output.splitlines()[-1].split()
    layer, products = float(words[words.index("layer_s") + 1]), float(words[words.index("products_s") + 1])
    return layer, products / layer


def compare(args, dtype):
    layers, seconds = {}, {}
    for way in WAYS[dtype]:
        layer = Layer(way, args.tokens)
        layers[way], seconds[way] = layer, layer.seconds()
        print("%s, PyTorch, %s: %.3f s" % (dtype, way, seconds[way]), flush=True)
    way = min(seconds, key=seconds.get)
    ratios, shares = [], []
    for _ in range(args.rounds):
        layer_s, share = ours(args, dtype)
        peer_s = statistics.median(layers[way].seconds() for _ in range(3))
        ratios.append(peer_s / layer_s)
        shares.append(share)
        print("  ours %.3f s   PyTorch %.3f s   ratio %.2f   products alone / ours %.2f" % (
            layer_s, peer_s, ratios[-1], share), flush=True)
    print("%s, %d thread(s), %d tokens: PyTorch (%s) takes %.2f of our time, the products alone %.2f; medians of %d" % (
        dtype, args.threads, args.tokens, way, statistics.median(ratios), statistics.median(shares), args.rounds),
          flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layer_bench", help="the program built from bench/layer_bench.cc")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"])
    args = parser.parse_args()
    torch.manual_seed(1)
    torch.set_num_threads(args.threads)
    for dtype in args.dtypes:
        compare(args, dtype)


if __name__ == "__main__":
    main()
