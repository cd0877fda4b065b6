"""cartesian tokenize: the files it writes, read here by an independent reader of their format, and what it refuses."""

import json
import os
import re
import struct
import subprocess
import unittest

from harness import CliTest
from job import PROGRAM
from run import corpus

END_OF_DOCUMENT = 256


def read_documents(prefix):
    """The documents of PREFIX.bin and PREFIX.idx, each a list of tokens."""
    index = prefix.with_name(prefix.name + ".idx").read_bytes()
    magic, version, kind, sequences, bounds = struct.unpack_from("<9sQBQQ", index)
    assert magic == b"MMIDIDX\0\0" and version == 1, "header"
    assert kind == 8, "tokens are unsigned 16-bit integers"
    at = 34
    lengths = struct.unpack_from(f"<{sequences}i", index, at)
    offsets = struct.unpack_from(f"<{sequences}q", index, at + 4 * sequences)
    documents = struct.unpack_from(f"<{bounds}q", index, at + 12 * sequences)
    assert len(index) == at + 12 * sequences + 8 * bounds, "index's size"
    assert documents == tuple(range(sequences + 1)), "one sequence a document"
    data = prefix.with_name(prefix.name + ".bin").read_bytes()
    return [list(struct.unpack_from(f"<{n}H", data, offset)) for n, offset in zip(lengths, offsets)]


def text_of(documents):
    for document in documents:
        assert document[-1] == END_OF_DOCUMENT, "every document ends with its token"
    return b"".join(bytes(document[:-1]) for document in documents)


class Tokens(CliTest):
    """What becomes of a text."""

    def tokenize(self, contents, *options):
        """Tokenizes a text of these bytes; the prefix of what is written."""
        folder = self.new_folder()
        text = folder / "a.txt"
        text.write_bytes(contents)
        self.run_program("tokenize", text, "-o", folder / "out", *options)
        return folder / "out"

    def test_documents_are_the_text(self):
        text = ("In the beginning, «was» the whale.\n" * 200).encode()
        documents = read_documents(self.tokenize(text, "--document-bytes", "1000"))
        self.assertGreater(len(documents), 5)
        self.assertEqual(text_of(documents), text)

    def test_held_out_documents_are_the_rest(self):
        text = corpus(1, 5000).encode()
        prefix = self.tokenize(text, "--document-bytes", "500", "--held-out", "0.1")
        kept, held_out = read_documents(prefix), read_documents(prefix.with_name("out-valid"))
        self.assertAlmostEqual(len(held_out) / (len(kept) + len(held_out)), 0.1, delta=0.02)
        self.assertEqual(sorted(text_of(kept) + text_of(held_out)), sorted(text))

    def test_same_text_same_bytes(self):
        outputs = [self.new_folder() / "out" for _ in range(2)]
        for output in outputs:
            self.run_program("tokenize", self.text, "-o", output, "--held-out", "0.2", "--document-bytes", "1000")
        for suffix in (".bin", ".idx", "-valid.bin", "-valid.idx", ".tokenizer.json", ".sources.json"):
            first, second = (output.with_name("out" + suffix) for output in outputs)
            self.assertEqual(first.read_bytes(), second.read_bytes(), suffix)

    def test_any_bytes_with_encoding_bytes(self):
        contents = bytes(range(256)) * 3
        self.assertEqual(text_of(read_documents(self.tokenize(contents, "--encoding", "bytes"))), contents)


class SentencePiece(CliTest):
    """A vocabulary learned from texts of two kinds, and what uses it."""

    VOCABULARY = 400

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        prose, digits = cls.folder / "prose.txt", cls.folder / "digits.txt"
        prose.write_text(corpus(seed=3))
        digits.write_text("".join(f"{i * i} na\u00efve\n" for i in range(3000)))
        cls.texts = prose, digits
        cls.pieces = cls.folder / "pieces"
        cls.run_program("tokenize", *cls.texts, "-o", cls.pieces, "--vocabulary", str(cls.VOCABULARY), "--held-out", "0.1",
                        "--document-bytes", "512")

    def test_tokenizer_file_and_model(self):
        tokenizer = json.loads(self.pieces.with_name("pieces.tokenizer.json").read_text())
        self.assertEqual((tokenizer["kind"], tokenizer["vocabulary"], tokenizer["end_of_document"]),
                         ("sentencepiece", self.VOCABULARY, 2))
        documents = read_documents(self.pieces)
        self.assertTrue(all(document[-1] == 2 and 2 not in document[:-1] for document in documents))
        self.assertLess(max(map(max, documents)), self.VOCABULARY)

    def test_a_given_model_does_the_same_on_any_threads(self):
        for threads in ("1", "3"):
            output = self.new_folder() / "pieces"
            self.run_program("tokenize", *self.texts, "-o", output, "--model", f"{self.pieces}.tokenizer.model", "--held-out",
                             "0.1", "--document-bytes", "512", "--threads", threads)
            for path in sorted(self.folder.glob("pieces*")):
                self.assertEqual(output.with_name(path.name).read_bytes(), path.read_bytes(), path.name)

    def test_the_given_model_is_not_overwritten(self):
        self.assert_refused(("tokenize", *self.texts, "-o", self.pieces, "--model", f"{self.pieces}.tokenizer.model"),
                            "pieces.tokenizer.model would be overwritten")

    def test_train_eval_and_generate(self):
        for documents in (False, True):
            config, run = self.config(model__vocab_size=self.VOCABULARY, model__document_attention=documents,
                                      data__train=str(self.pieces), data__valid=f"{self.pieces}-valid")
            self.run_program("train", config)
            checkpoint = run.checkpoint(8)
            self.assertEqual(json.loads((checkpoint / "config.json").read_text())["document_attention"], documents)
            out = self.run_program("eval", checkpoint, "--data", f"{self.pieces}-valid").out
            self.assertEqual(sorted(re.findall(r"^  (\S+\.txt) +loss", out, re.MULTILINE)), ["digits.txt", "prose.txt"])
            self.assert_refused(("eval", checkpoint, "--data", self.tokens), "another tokenizer than")
            self.assert_refused(("train", config, "--resume", "--set", f"data.valid={self.tokens}-valid"), "another tokenizer than")
            out = self.run_program("generate", checkpoint, "--prompt", "A na\u00efve prompt", "--tokens", "20").out
            self.assertTrue(out.startswith("A na\u00efve prompt"), out)
            self.assertGreater(len(out), len("A na\u00efve prompt\n"))

    def test_a_smaller_model_vocabulary_is_refused(self):
        config, _ = self.config(model__vocab_size=self.VOCABULARY // 2, data__train=str(self.pieces),
                                data__valid=f"{self.pieces}-valid")
        self.assert_refused(("train", config), r"pieces\.bin: token \d+ .* vocabulary of 200")

    def test_mixture(self):
        output = self.new_folder() / "mixed"
        prose, digits = self.texts
        self.run_program("tokenize", "--corpus", "3", prose, "--corpus", "1", digits, "-o", output, "--document-bytes", "512")
        sources = json.loads(output.with_name("mixed.sources.json").read_text())
        self.assertEqual(sources["sources"], ["prose.txt", "digits.txt"])
        shares = [0, 0]
        for source, document in zip(sources["documents"], read_documents(output)):
            shares[source] += len(document) - 1
        self.assertAlmostEqual(shares[0] / sum(shares), 0.75, delta=0.02)
        self.assertAlmostEqual(sum(shares), sum(path.stat().st_size for path in self.texts), delta=512)

    def test_memory_does_not_grow_with_the_text(self):
        def peak(copies):
            folder = self.new_folder()
            text = folder / "a.txt"
            text.write_bytes(self.texts[1].read_bytes() * copies)
            command = [PROGRAM, "tokenize", text, "-o", folder / "out", "--threads", "2"]
            child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            self.assertEqual(child.returncode, 0)
            return usage.ru_maxrss

        self.assertLess(peak(1000), 1.2 * peak(100))


class Refused(CliTest):
    """What cannot be tokenized, of which nothing is left."""

    def test_not_utf8(self):
        text = self.folder / "latin.txt"
        text.write_bytes(b"ascii first, then caf\xe9 in latin-1\n" * 200)
        words = ("tokenize", text, "-o", self.folder / "latin")
        self.assert_refused(words, r"latin\.txt: byte 21 \(0xE9\)", "--encoding bytes")
        self.assertFalse((self.folder / "latin.bin").exists())
        self.run_program(*words, "--encoding", "bytes")
        self.assertTrue((self.folder / "latin.bin").exists())

    def test_texts_and_options(self):
        output = ("-o", self.folder / "out")
        self.assert_refused(("tokenize", self.folder / "none.txt", *output), r"none\.txt", "No such file")
        empty = self.folder / "empty.txt"
        empty.write_bytes(b"")
        self.assert_refused(("tokenize", empty, *output), r"empty\.txt is empty")
        self.assert_refused(("tokenize", self.folder, *output), "not a regular file")
        self.assert_refused(("tokenize", self.text, "-o", self.text / "out"), r"corpus\.txt.*Not a directory")
        for encoding in ("utf16", "ebcdic"):
            self.assert_refused(("tokenize", self.text, *output, "--encoding", encoding), f"encoding.*{encoding}")
        for words, pattern in ((output, "texts"), ((self.text, *output, "--held-out", "2"), "held-out")):
            result = self.run_program("tokenize", *words, code=2)
            self.assertRegex(result.err, pattern)
            self.assertNotIn("terminate called", result.out + result.err)
        self.assertEqual(list(self.folder.glob("out*")), [])

    def test_sentencepiece(self):
        output = ("-o", self.folder / "out")
        garbage = self.folder / "garbage.model"
        garbage.write_bytes(bytes(range(256)) * 10)
        for model in (garbage, self.text, f"{self.tokens}.idx"):
            self.assert_refused(("tokenize", self.text, *output, "--model", model), re.escape(str(model)), "SentencePiece")
        self.assert_refused(("tokenize", self.text, *output, "--model", self.folder / "none"), "none", "No such file")
        self.assert_refused(("tokenize", self.text, *output, "--encoding", "bytes", "--model", garbage), "--encoding bytes")
        for size, reason in (("20", "smaller"), ("1000000", "too high")):
            result = self.run_program("tokenize", self.text, *output, "--vocabulary", size, code=1)
            self.assertRegex(result.errors()[-1], f"--vocabulary {size}: .*{reason}")
        for words, pattern in ((("--model", garbage, "--vocabulary", "300"), "vocabulary"),
                               (("--model-type", "bpe"), "vocabulary"), (("--train-bytes", "9"), "vocabulary")):
            self.assertRegex(self.run_program("tokenize", self.text, *output, *words, code=2).err, pattern)
        self.assertEqual(list(self.folder.glob("out*")), [])

    def test_corpora(self):
        output = ("-o", self.folder / "out")
        self.assert_refused(("tokenize", "--corpus", self.text, *output), r"corpus\.txt", "weight must come first")
        self.assert_refused(("tokenize", "--corpus", "2", *output), "--corpus 2: texts must follow")
        for weight in ("0", "-1", "nan", "inf"):
            self.assert_refused(("tokenize", "--corpus", weight, self.text, *output), f"weight {weight} is not")
        self.assert_refused(("tokenize", "--corpus", "1", self.text, "--corpus", "2", self.text, *output), "twice")
        self.run_program("tokenize", self.text, "--corpus", "1", self.text, *output, code=2)
        self.assertEqual(list(self.folder.glob("out*")), [])

    def test_full_disk(self):
        """A limit on the size of files stands for one."""
        result = self.run_program("tokenize", self.text, "-o", self.folder / "full", code=1, file_limit=16 << 10)
        self.assert_one_sentence(result, r"full", "File too large")
        self.assertEqual(list(self.folder.glob("full*")), [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
