"""Checkpoints that PyTorch wrote, with the authors' names and keys: evaluated here they have the loss they have there."""

import json
import unittest

import numpy
import torch
from safetensors.torch import save_file
from torch.nn import functional

from cartesian_moe import CartesianMoe, Config, load
from harness import CliTest, number_after
from token_data import write_tokens

# A config.json as the authors' tools write it, at a tiny size; no sequence length divides the number of tokens.
LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    "hidden_act": "silu", "hidden_size": 32, "initializer_range": 0.02, "intermediate_size": 48,
    "max_position_embeddings": 20, "num_attention_heads": 4, "num_hidden_layers": 3, "num_key_value_heads": 4,
    "pretraining_tp": 1, "rms_norm_eps": 1e-06, "rope_scaling": None, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16", "transformers_version": "4.31.0", "use_cache": True, "vocab_size": 97,
    "initial_moe_layer": -1, "interleave_moe_layer": True, "expert_interval": 2, "use_moe": True, "num_experts": 8,
    "moe_top_k": 2, "use_residual": True,
}
# What each row of the paper's table changes.
SYSTEMS = {
    "dense": {"use_moe": False},
    "smoe-share": {},
    "smoe-top3": {"moe_top_k": 3, "intermediate_size": 51, "use_residual": False},
    "hash": {"moe_top_k": -2},
    "fine-grained": {"num_experts": 16, "moe_top_k": 4, "fine_grain": True, "grain_level": 2},
    "top-p": {"moe_top_k": -1},
    "cartesian": {"c2_fine_grain": True, "grain_level": 2},
    "cartesian-noshared": {"c2_fine_grain": True, "grain_level": 2, "use_residual": False},
}
TOKENS = 20 * 9 + 13
SMALLEST_GAP = 1e-5


def random_tensors(config, seed=20):
    """Weights with which every part of the model matters: outputs of order one, norms and biases off their defaults."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):  # names and shapes are enough
        shapes = CartesianMoe(config).state_dict()
    tensors = {}
    for name, parameter in shapes.items():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() == 2:
            tensors[name] = noise / parameter.shape[1] ** 0.5
        else:
            tensors[name] = (1 if "norm" in name else 0) + 0.3 * noise
    return tensors


class Foreign(CliTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        torch.set_num_threads(1)
        ids = numpy.random.default_rng(1).integers(0, LLAMA["vocab_size"], TOKENS)
        cls.data = cls.folder / "foreign"
        write_tokens(cls.data, ids)
        cls.ids = torch.from_numpy(ids)

    def directory(self, system, dtype=torch.float32, files=1, **changes):
        """A checkpoint directory of `system`: one file of tensors, or several and an index."""
        path = self.new_folder(f"{system}-")
        (path / "config.json").write_text(json.dumps({**LLAMA, **SYSTEMS[system], **changes}))
        tensors = random_tensors(Config.read(path / "config.json"))
        self.save(path, {name: tensor.to(dtype) for name, tensor in tensors.items()}, files)
        return path

    def save(self, path, tensors, files=1):
        if files == 1:
            save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
            return
        names = sorted(tensors)  # dealt out like cards: what belongs together lies apart
        where = {name: f"model-{i % files + 1:05}-of-{files:05}.safetensors" for i, name in enumerate(names)}
        for file in set(where.values()):
            save_file({name: tensors[name] for name in names if where[name] == file}, path / file)
        (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))

    def evaluate(self, path, *options, ranks=1):
        return self.run_program("eval", path, "--data", self.data, *options, ranks=ranks).out

    def torch_loss(self, path, length):
        """In float64, over windows that follow each other, each token predicting the next."""
        windows = (TOKENS - 1) // length
        ids, targets = (self.ids[i:][: windows * length].view(windows, length) for i in (0, 1))
        with torch.no_grad():
            output = load(path, torch.float64)(ids)
        self.assertGreater(output.smallest_gap, SMALLEST_GAP, "a choice hangs on rounding: take another seed")
        return functional.cross_entropy(output.logits.flatten(0, 1), targets.flatten()).item(), targets.numel()

    def check_loss(self, path, length, *options, ranks=1):
        out = self.evaluate(path, *options, ranks=ranks)
        loss, tokens = self.torch_loss(path, length)
        self.assertEqual(number_after("tokens", out), tokens)
        print(f"{path.name}: loss {loss:.6f}, difference {number_after('loss', out) - loss:+.1e}")
        self.assert_close(number_after("loss", out), loss, 1e-5)

    def test_eight_systems(self):
        for system in SYSTEMS:
            with self.subTest(system, layout="float32 in one file"):
                self.check_loss(self.directory(system), 20)
            with self.subTest(system, layout="bfloat16 in three files"):
                self.check_loss(self.directory(system, torch.bfloat16, files=3), 9, "--seq-length", "9")

    def test_layouts(self):
        """Every dtype in one file and in several, any sequence length, on one rank and on two."""
        for dtype, files, length, ranks in (
                (torch.bfloat16, 1, 20, 1), (torch.float32, 2, 31, 2), (torch.float16, 4, 1, 1),
                (torch.bfloat16, 2, TOKENS - 1, 2)):
            with self.subTest(dtype=dtype, files=files, length=length, ranks=ranks):
                options = () if length == 20 else ("--seq-length", str(length))
                self.check_loss(self.directory("cartesian", dtype, files), length, *options, ranks=ranks)

    def test_keys_that_matter(self):
        for key, value in (("rope_theta", 500.0), ("rms_norm_eps", 1e-2), ("expert_interval", 1),
                           ("num_attention_heads", 2), ("grain_level", 3)):
            with self.subTest(key):
                changes = {"num_key_value_heads": value} if key == "num_attention_heads" else {}
                self.check_loss(self.directory("cartesian", **{key: value}, **changes), 20)
        self.check_loss(self.directory("top-p", moe_top_p=0.6), 20)

    def test_constants_of_older_tools(self):
        path = self.directory("cartesian")
        tensors = random_tensors(Config.read(path / "config.json"))
        tensors |= {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(4) for i in range(3)}
        expected = self.evaluate(path)
        self.save(path, tensors)
        self.assertEqual(number_after("loss", self.evaluate(path)), number_after("loss", expected))

    def test_tensors_that_do_not_fit(self):
        q = "model.layers.0.self_attn.q_proj"
        for name, tensor, patterns in (
                (f"{q}.bias", torch.zeros(32), (f"'{q}.bias' is not one of the model",)),
                ("model.layers.1.wg.weight", torch.zeros(8, 32), (r"'model.layers.1.wg.weight' is not one",)),
                ("model.layers.0.mlp0.8.up_proj.weight", torch.zeros(24, 32), (r"mlp0.8.up_proj.weight' is not one",)),
                (f"{q}.weight", torch.zeros(16, 32), (q, r"\[16, 32\]", r"\[32, 32\]")),
                (f"{q}.weight", torch.zeros(32 * 32), (q, r"\[1024\]")),
                (f"{q}.weight", torch.zeros(32, 32, dtype=torch.float64), (q, "F64", "F32, BF16 or F16")),
                (f"{q}.weight", torch.zeros(32, 32, dtype=torch.int8), (q, "I8"))):
            with self.subTest(name, shape=list(tensor.shape), dtype=tensor.dtype):
                path = self.directory("cartesian")
                self.save(path, {**random_tensors(Config.read(path / "config.json")), name: tensor})
                self.assert_refused(("eval", path, "--data", self.data), r"/model\.safetensors: tensor", *patterns)

    def test_what_is_missing(self):
        path = self.directory("cartesian", files=2)
        (path / "model-00002-of-00002.safetensors").unlink()
        self.assert_refused(("eval", path, "--data", self.data), r"model-00002-of-00002\.safetensors", "No such file")
        tensors = random_tensors(Config.read(path / "config.json"))
        del tensors["model.layers.2.mlp1.7.down_proj.weight"]
        self.save(path, tensors, files=2)
        self.assert_refused(("eval", path, "--data", self.data), r"model\.layers\.2\.mlp1\.7\.down_proj\.weight.*missing",
                            ranks=2)

    def test_data_too_short_for_a_window(self):
        path = self.directory("cartesian")
        self.assert_refused(("eval", path, "--data", self.data, "--seq-length", str(TOKENS)),
                            rf"foreign\.bin has {TOKENS} tokens, but --seq-length = {TOKENS} needs at least {TOKENS + 1}")
        path = self.directory("cartesian", max_position_embeddings=1000)
        self.assert_refused(("eval", path, "--data", self.data), "max_position_embeddings = 1000 needs at least 1001")


if __name__ == "__main__":
    unittest.main(verbosity=2)
