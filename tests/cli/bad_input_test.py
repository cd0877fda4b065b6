"""Settings and command lines that cannot work: each ends at once, with a sentence that names what is wrong."""

import support


class BadInputTest(support.CliTest):
    def refuse_setting(self, sentence, *, ranks=1, **values):
        config = self.make_config()
        self.refuse(sentence, "train", config, *self.settings(**values), ranks=ranks)
        self.assertEqual(self.checkpoints(), [])

    def test_unknown_key_suggests_the_nearest(self):
        self.refuse_setting(r"train\.stepz.*train\.steps", train_stepz=3)

    def test_unknown_key_in_the_file_names_the_line(self):
        config = self.write("config.toml", '[train]\nsteps = 3\nlearning_rat = 1.0\n')
        self.refuse(r"config\.toml:3.*learning_rat.*train\.learning_rate", "train", config)

    def test_ill_typed_values(self):
        self.refuse_setting(r"train\.steps.*integer", train_steps="many")
        self.refuse_setting(r"train\.learning_rate.*number", train_learning_rate="true")
        self.refuse_setting(r"model\.use_residual.*true or false", model_use_residual=1)
        self.refuse_setting(r"train\.dtype.*float32.*bfloat16", train_dtype="float8")
        self.refuse_setting(r"train\.steps.*at least", train_steps=-1)

    def test_text_that_is_not_toml_names_the_line(self):
        config = self.write("config.toml", "[train]\nsteps = = 3\n")
        self.refuse(r"config\.toml:2", "train", config)

    def test_missing_configuration(self):
        self.refuse(r"absent\.toml.*No such file", "train", "absent.toml")

    def test_sizes_that_cannot_work(self):
        self.refuse_setting(r"moe_top_k = 7.*num_experts = 6", model_moe_top_k=7)
        self.refuse_setting(r"hidden_size.*num_attention_heads", model_num_attention_heads=5)
        self.refuse_setting(r"intermediate_size.*grain_level", model_grain_level=5)
        self.refuse_setting(r"batch_sequences.*micro_batch_sequences", train_micro_batch_sequences=4)
        self.refuse_setting(r"vocab_size", model_vocab_size=0)

    def test_data_that_is_missing_or_too_small(self):
        self.refuse_setting(r"nowhere.*No such file", data_train=self.directory / "nowhere")
        self.refuse_setting(r"data\.train", data_train='""')
        self.refuse_setting(r"tokens.*1000000", train_sequence_length=1000000)

    def test_tokens_beyond_the_vocabulary(self):
        self.refuse_setting(r"tokens\.bin.*100", model_vocab_size=100)

    def test_run_directory_that_cannot_be_written(self):
        occupied = self.write("occupied", "a file where a directory should be")
        self.refuse_setting(r"occupied.*(Not a directory|File exists)", run_dir=occupied / "run")

    def test_run_directory_in_use(self):
        config = self.make_config()
        self.succeed("train", config, *self.settings(train_steps=2))
        self.refuse(r"already holds a run.*--resume", "train", config, *self.settings(train_steps=4))

    def test_placement_that_does_not_exist(self):
        self.refuse_setting(r"absent\.json.*No such file", parallel_placement=self.directory / "absent.json")

    def test_node_sizes_that_do_not_add_up(self):
        self.refuse_setting(r"node_sizes", parallel_node_sizes="[1, 1]")

    def test_expert_ranks_that_do_not_divide(self):
        self.refuse_setting(r"expert_ranks", parallel_expert_ranks=2)

    def test_command_lines(self):
        for arguments in ([], ["fly"], ["train"], ["eval"], ["train", "a.toml", "--sett", "x=1"]):
            result = self.cartesian(*arguments)
            self.assertEqual(result.code, support.EXIT_USAGE, result)
        self.assertIn("train", self.succeed("--help").stdout)
        self.assertRegex(self.succeed("--version").stdout, r"\d+\.\d+\.\d+")
        self.assertIn("train.steps", self.succeed("train", "--keys").stdout)


if __name__ == "__main__":
    support.main()
