"""Checkpoints of `cartesian train` open in PyTorch: logits, losses and every gradient of a training step agree."""

import os
import subprocess
import unittest

import numpy
import torch
from safetensors.torch import load_file
from torch.nn import functional

from cartesian_moe import load
from harness import CliTest
from run import SYSTEMS
from token_data import write_tokens

LENGTH = 24
WINDOWS = 5
BALANCE = 0.3  # large enough to be seen in every router's gradient
# PyTorch computes in float64, so what is left is our float32's rounding.
TOLERANCE = 2e-5
# Initial weights far enough from zero that experts differ; with TINY's seed no choice hangs on rounding.
INITIALIZER_RANGE = 0.2
SMALLEST_GAP = 1e-5


class Gradients(CliTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        torch.set_num_threads(1)
        cls.windows = cls.folder / "windows"
        text = numpy.fromfile(f"{cls.tokens}.bin", dtype=numpy.uint16)[: WINDOWS * LENGTH + 1]
        write_tokens(cls.windows, text)
        text = torch.from_numpy(text.astype(numpy.int64))
        cls.ids, cls.targets = text[:-1].view(WINDOWS, LENGTH), text[1:].view(WINDOWS, LENGTH)

    def ours(self, checkpoint, ranks):
        """What the library computes on `ranks` ranks."""
        output = self.new_folder() / "step.safetensors"
        subprocess.run([os.environ["CARTESIAN_TRAINING_STEP"], checkpoint, self.windows, output, str(LENGTH),
                        str(BALANCE), str(ranks)], check=True)
        return load_file(output)

    def reference(self, checkpoint):
        """The same of PyTorch, under the same names."""
        model = load(checkpoint, torch.float64)
        output = model(self.ids)
        self.assertGreater(output.smallest_gap, SMALLEST_GAP, "a choice hangs on rounding: take another train.seed")
        loss = functional.cross_entropy(output.logits.flatten(0, 1), self.targets.flatten())
        (loss + BALANCE * output.balance_loss).backward()
        results = {"losses": torch.stack((loss, output.balance_loss)).detach()}
        results |= {f"logits.{row}": logits for row, logits in enumerate(output.logits.detach().flatten(0, 1))}
        for name, parameter in model.named_parameters():
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            results[f"gradient.{name}"] = gradient
        return results

    def errors(self, checkpoint, ranks):
        """name -> norm-relative error of our tensors; a gradient of zero must be zero."""
        ours, reference = self.ours(checkpoint, ranks), self.reference(checkpoint)
        self.assertEqual(sorted(ours), sorted(reference))
        errors = {}
        for name, expected in reference.items():
            self.assertEqual(ours[name].shape, expected.shape, name)
            size = expected.norm().item()
            errors[name] = (ours[name].double() - expected).norm().item() / (size if size > 0 else 1)
        return errors

    def test_eight_systems(self):
        for name, keys in SYSTEMS.items():
            changes = {f"model__{key}": value for key, value in keys.items()}
            _, run = self.stopped_run(3, model__num_hidden_layers=3, model__num_attention_heads=4,
                                      model__initializer_range=INITIALIZER_RANGE, **changes)
            for ranks in (1, 2):
                with self.subTest(name, ranks=ranks):
                    errors = self.errors(run.checkpoint(3), ranks)
                    worst = {part: max((error, tensor) for tensor, error in errors.items() if tensor.startswith(part))
                             for part in ("losses", "logits", "gradient")}
                    print(f"{name}, {ranks} ranks: {len(errors)} tensors;",
                          ", ".join(f"{tensor} {error:.1e}" for error, tensor in worst.values()))
                    self.assertLess(max(errors.values()), TOLERANCE, worst)


if __name__ == "__main__":
    unittest.main(verbosity=2)
