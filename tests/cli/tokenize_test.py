"""cartesian tokenize: the files it writes, read here by an independent reader of their format, and what it refuses."""

import struct
import unittest

from harness import CliTest
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

    def test_full_disk(self):
        """A limit on the size of files stands for one."""
        result = self.run_program("tokenize", self.text, "-o", self.folder / "full", code=1, file_limit=16 << 10)
        self.assert_one_sentence(result, r"full", "File too large")
        self.assertEqual(list(self.folder.glob("full*")), [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
