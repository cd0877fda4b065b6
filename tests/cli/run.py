"""What a run is made of: a tiny configuration and corpus, and what the run directory and its checkpoints hold."""

import json
import pathlib
import random
import struct

TINY = {
    "model.hidden_size": 32,
    "model.intermediate_size": 64,
    "model.num_hidden_layers": 2,
    "model.num_attention_heads": 2,
    "model.num_experts": 4,
    "model.moe_top_k": 2,
    "model.grain_level": 2,
    "train.steps": 8,
    "train.batch_sequences": 6,
    "train.micro_batch_sequences": 6,
    "train.sequence_length": 32,
    "train.seed": 7,
    "train.learning_rate": 1e-2,
    "train.min_learning_rate": 1e-3,
    "train.warmup_steps": 2,
    "valid.every": 4,
    "valid.sequences": 8,
    "checkpoint.every": 0,
    "run.progress": "plain",
    "comm.timeout_s": 60,
}

# The rows of the paper's table, at TINY's sizes: what each changes in [model].
SYSTEMS = {
    "dense": dict(sub_layers=0),
    "smoe-share": dict(sub_layers=1, grain_level=1),
    "smoe-top3": dict(sub_layers=1, grain_level=1, moe_top_k=3, use_residual=False, intermediate_size=68),
    "hash": dict(sub_layers=1, grain_level=1, routing="hash"),
    "fine-grained": dict(sub_layers=1, num_experts=8, moe_top_k=4),
    "top-p": dict(sub_layers=1, grain_level=1, routing="top_p"),
    "cartesian": dict(),
    "cartesian-noshared": dict(use_residual=False),
}


def corpus(seed=1, words=6000):
    """English-like text: words drawn from a small vocabulary, in sentences."""
    draw = random.Random(seed)
    vocabulary = ["".join(draw.choice("aeioutrsnldhcm") for _ in range(draw.randint(2, 7))) for _ in range(120)]
    sentences = []
    while words > 0:
        length = draw.randint(4, 12)
        sentences.append(" ".join(draw.choice(vocabulary) for _ in range(length)).capitalize() + ".")
        words -= length
    return "\n".join(sentences) + "\n"


def toml(settings):
    sections = {}
    for key, value in settings.items():
        section, name = key.split(".", 1)
        sections.setdefault(section, []).append(f"{name} = {json.dumps(value)}\n")
    return "\n".join(f"[{section}]\n{''.join(lines)}" for section, lines in sections.items())


class Run:
    """A run directory."""

    def __init__(self, path):
        self.path = pathlib.Path(path)

    def checkpoints(self):
        """Steps of the complete checkpoints."""
        names = self.path.glob("checkpoints/step-*/checksums.json")
        return sorted(int(name.parent.name[len("step-"):]) for name in names)

    def checkpoint(self, step):
        return self.path / "checkpoints" / f"step-{step:08}"

    def temporary(self):
        return sorted(path.name for path in self.path.rglob("*") if ".tmp" in path.name)

    def records(self):
        """Lines of metrics.jsonl; the last may be half-written while the run goes on."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [json.loads(line) for line in lines]

    def losses(self):
        return {record["step"]: record["loss"] for record in self.records() if "loss" in record}

    def valid_losses(self):
        return {record["step"]: record["valid_loss"] for record in self.records() if "valid_loss" in record}

    def steps(self):
        return [record["step"] for record in self.records() if "loss" in record]

    def lines(self):
        """Lines of metrics.jsonl so far, cheaply."""
        path = self.path / "metrics.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0


def read_tensors(checkpoint):
    """name -> (dtype, shape, bytes) of every tensor in a checkpoint, the optimizer's too."""
    tensors = {}
    for path in sorted(pathlib.Path(checkpoint).glob("*.safetensors")):
        data = path.read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        for name, entry in json.loads(data[8:8 + size]).items():
            if name == "__metadata__":
                continue
            if name in tensors:
                raise AssertionError(f"{checkpoint}: two files hold {name}")
            begin, end = entry["data_offsets"]
            tensors[name] = (entry["dtype"], entry["shape"], data[8 + size + begin:8 + size + end])
    return tensors


def altered(path, offset, value):
    """Overwrites bytes of a file; a negative offset counts from its end."""
    data = bytearray(path.read_bytes())
    start = offset % len(data)
    data[start:start + len(value)] = value
    path.write_bytes(data)
