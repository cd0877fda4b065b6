"""The eight systems of the paper's table: their configurations, and what the paper reports of them."""
import dataclasses
import os
import tomllib

CONFIGS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "configs", "paper")


@dataclasses.dataclass(frozen=True)
class System:
    name: str
    config: str  # configs/paper/base-CONFIG.toml
    base: float | None = None  # the paper's perplexity of MoE-Base, MoE-Large, and MoE-Large without each token's top-1
    large: float | None = None
    disabled: float | None = None

    @property
    def path(self):
        return os.path.join(CONFIGS, f"base-{self.config}.toml")

    @property
    def routed(self):
        return self.config != "dense"


# arXiv 2410.16077v3: perplexity on the Pile's validation set after 100 billion tokens.
SYSTEMS = [
    System("Dense", "dense", 8.55, 6.95),
    System("SMoE-Share", "smoe-share", 7.37, 6.13, 7568.85),
    System("SMoE-Top3", "smoe-top3", 7.40, 6.18, 847.46),
    System("Hash Layer", "hash", 7.47, 6.28),
    System("Fine-grained", "fine-grained", 7.33, 6.16, 3095.44),
    System("TopP", "topp", 7.41, 6.14, 84.42),
    System("CartesianMoE", "cartesian", 7.19, 6.08, 27.72),
    System("CartesianMoE w/o shared", "cartesian-noshared", None, 6.15),
]

# MoE-Base, scaled down; the proportions of the rows stay: SMoE-Top3's FFNs are 17/16 as wide here, too.
PAPER_HIDDEN, PAPER_WIDTH = 768, 3072
HIDDEN, WIDTH, BLOCKS, HEADS = 128, 512, 4, 4
LENGTH, BATCH = 256, 8


def settings(system, data, steps, seed, run_dir):
    """What turns the paper's configuration into the small one: a list of section.key=value."""
    with open(system.path, "rb") as file:
        width = tomllib.load(file)["model"]["intermediate_size"] * WIDTH // PAPER_WIDTH
    return [
        "model.vocab_size=257", f"model.hidden_size={HIDDEN}", f"model.intermediate_size={width}",
        f"model.num_hidden_layers={BLOCKS}", f"model.num_attention_heads={HEADS}",
        f"data.train={data}", f"data.valid={data}-valid",
        f"train.steps={steps}", f"train.batch_sequences={BATCH}", f"train.micro_batch_sequences={BATCH}",
        f"train.sequence_length={LENGTH}", f"train.seed={seed}", "train.dtype=float32",
        "train.learning_rate=3e-3", "train.min_learning_rate=3e-4", f"train.warmup_steps={max(1, steps // 10)}",
        "valid.every=0", "valid.sequences=128", "checkpoint.every=0", "parallel.threads=1",
        f"run.dir={run_dir}", "run.progress=off",
    ]
