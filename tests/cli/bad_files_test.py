"""Files that are truncated, altered, of another model, or that do not fit on the disk: refused by name."""

import resource
import struct

import support

INDEX_HEADER_BYTES = 34


def truncate(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def flip_byte(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 0x41
    path.write_bytes(data)


class BadTokenFileTest(support.CliTest):
    def setUp(self):
        super().setUp()
        self.config = self.make_config()
        self.data = self.tokens.with_suffix(".bin")
        self.index = self.tokens.with_suffix(".idx")

    def refuse_train(self, sentence):
        self.refuse(sentence, "train", self.config)

    def test_truncated_data(self):
        truncate(self.data, 0.5)
        self.refuse_train(r"tokens\.(bin|idx)")

    def test_truncated_index(self):
        whole = self.index.read_bytes()
        for share in (0.0, 0.1, 0.5, 0.99):
            self.index.write_bytes(whole[: int(len(whole) * share)])
            self.refuse_train(r"tokens\.idx")

    def test_hostile_header_fields(self):
        whole = self.index.read_bytes()
        for offset, layout, value in ((0, "<9s", b"MMIDIDX\1\0"), (9, "<Q", 2), (17, "<B", 77), (18, "<Q", 2**63),
                                      (18, "<Q", 2**61), (26, "<Q", 0), (26, "<Q", 2**64 - 1)):
            header = bytearray(whole[:INDEX_HEADER_BYTES])
            struct.pack_into(layout, header, offset, value)
            self.index.write_bytes(bytes(header) + whole[INDEX_HEADER_BYTES:])
            with self.subTest(offset=offset, value=value):
                self.refuse_train(r"tokens\.idx")

    def test_negative_length(self):
        whole = bytearray(self.index.read_bytes())
        struct.pack_into("<i", whole, INDEX_HEADER_BYTES, -5)
        self.index.write_bytes(whole)
        self.refuse_train(r"tokens\.idx")


class BadCheckpointTest(support.CliTest):
    def setUp(self):
        super().setUp()
        self.config = self.make_config()
        self.succeed("train", self.config, *self.settings(train_steps=2))
        self.checkpoint = self.checkpoints()[-1]

    def refuse_eval(self, sentence):
        self.refuse(sentence, "eval", self.checkpoint, "--data", f"{self.tokens}-valid")

    def refuse_resume(self, sentence, **values):
        self.refuse(sentence, "train", self.config, "--resume", *self.settings(train_steps=4, **values))

    def test_every_truncated_file_is_named(self):
        for path in sorted(self.checkpoint.iterdir()):
            with self.subTest(file=path.name):
                whole = path.read_bytes()
                truncate(path, 0.6)
                self.refuse_resume(path.name.replace(".", r"\."))
                path.write_bytes(whole)

    def test_every_altered_file_is_named(self):
        for path in sorted(self.checkpoint.iterdir()):
            with self.subTest(file=path.name):
                whole = path.read_bytes()
                flip_byte(path, len(whole) - 3)
                self.refuse_resume(path.name.replace(".", r"\.") + "|checksums")
                path.write_bytes(whole)

    def test_missing_weights(self):
        for path in self.checkpoint.glob("model-*.safetensors"):
            path.unlink()
        self.refuse_eval(r"model-.*safetensors")

    def test_directory_that_is_no_checkpoint(self):
        folder = self.directory / "holiday"
        folder.mkdir()
        self.refuse(r"holiday", "eval", folder, "--data", self.tokens)
        self.refuse(r"nowhere", "generate", self.directory / "nowhere", "--prompt", "x")

    def test_checkpoint_of_another_model(self):
        self.refuse_resume(r"hidden_size", model_hidden_size=64)
        self.refuse_resume(r"num_experts", model_num_experts=8)

    def test_resume_with_another_seed(self):
        self.refuse_resume(r"train\.seed", train_seed=7)

    def test_model_that_is_not_ours(self):
        config = self.checkpoint / "config.json"
        config.write_text(config.read_text(encoding="utf-8").replace("cartesian_moe", "mamba"), encoding="utf-8")
        (self.checkpoint / "checksums.json").unlink()
        self.refuse_eval(r"config\.json.*mamba")

    def test_prompt_without_a_tokenizer(self):
        (self.checkpoint / "tokenizer.json").unlink()
        (self.checkpoint / "checksums.json").unlink()
        self.refuse(r"tokenizer\.json", "generate", self.checkpoint, "--prompt", "x")

    def test_data_that_does_not_exist(self):
        self.refuse(r"nowhere", "eval", self.checkpoint, "--data", self.directory / "nowhere")


class DiskFullTest(support.CliTest):
    LIMIT_BYTES = 40_000  # below the size of a weights file, above that of everything else

    def limited(self):
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.LIMIT_BYTES, self.LIMIT_BYTES))

    def test_full_disk_while_saving_keeps_the_last_checkpoint(self):
        config = self.make_config()
        self.succeed("train", config, *self.settings(train_steps=4))
        before = self.checkpoints()
        arguments = ["train", config, "--resume", *self.settings(train_steps=12)]
        # Python ignores SIGXFSZ; leaving that to the program turns the signal into an error of write().
        full = self.cartesian(*arguments, preexec_fn=self.limited, restore_signals=False)
        self.assertEqual(full.code, support.EXIT_ERROR, full)
        self.assertRegex(full.stderr, r"step-\d+.*File too large", full)
        self.assertEqual(self.checkpoints(), before)
        self.succeed(*arguments)

    def test_full_disk_while_tokenizing_leaves_nothing(self):
        text = self.write("a.txt", support.make_text(1, 20000))
        result = self.cartesian("tokenize", text, "-o", self.tokens, preexec_fn=self.limited, restore_signals=False)
        self.assertEqual(result.code, support.EXIT_ERROR, result)
        self.assertRegex(result.stderr, r"tokens.*File too large", result)
        self.assertEqual(list(self.directory.glob("tokens*")), [])


if __name__ == "__main__":
    support.main()
