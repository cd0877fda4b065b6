"""cartesian tokenize: the files it writes, read here by an independent reader of Megatron's format, and what it refuses."""

import struct

import support

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


class TokenizeTest(support.CliTest):
    def test_documents_are_the_text(self):
        text = "In the beginning, «was» the whale.\n" * 200
        path = self.write("a.txt", text)
        self.succeed("tokenize", path, "-o", self.tokens, "--document-bytes", "1000")
        documents = read_documents(self.tokens)
        self.assertGreater(len(documents), 5)
        self.assertEqual(text_of(documents), text.encode())

    def test_held_out_documents_are_the_rest(self):
        text = support.make_text(1, 5000)
        path = self.write("a.txt", text)
        self.succeed("tokenize", path, "-o", self.tokens, "--document-bytes", "500", "--held-out", "0.1")
        kept = read_documents(self.tokens)
        held_out = read_documents(self.tokens.with_name("tokens-valid"))
        self.assertAlmostEqual(len(held_out) / (len(kept) + len(held_out)), 0.1, delta=0.02)
        self.assertEqual(sorted(text_of(kept) + text_of(held_out)), sorted(text.encode()))

    def test_same_text_same_bytes(self):
        path = self.write("a.txt", support.make_text(2, 3000))
        for name in ("first", "second"):
            self.succeed("tokenize", path, "-o", self.directory / name, "--held-out", "0.2", "--document-bytes", "1000")
        for suffix in (".bin", ".idx", "-valid.bin", "-valid.idx", ".tokenizer.json", ".sources.json"):
            first, second = (self.directory / (name + suffix) for name in ("first", "second"))
            self.assertEqual(first.read_bytes(), second.read_bytes(), suffix)

    def test_text_that_is_not_utf8_names_file_and_offset(self):
        path = self.write("latin1.txt", b"caf\xe9 au lait\n")
        self.refuse(r"latin1\.txt.*\b3\b", "tokenize", path, "-o", self.tokens)
        self.assertFalse(self.tokens.with_suffix(".bin").exists())

    def test_any_bytes_with_encoding_bytes(self):
        contents = bytes(range(256)) * 3
        path = self.write("raw.bin", contents)
        self.succeed("tokenize", path, "-o", self.tokens, "--encoding", "bytes")
        self.assertEqual(text_of(read_documents(self.tokens)), contents)

    def test_refuses_what_cannot_work(self):
        good = self.write("good.txt", support.make_text(3, 500))
        empty = self.write("empty.txt", "")
        self.refuse(r"empty\.txt", "tokenize", empty, "-o", self.tokens)
        self.refuse(r"absent\.txt.*No such file", "tokenize", self.directory / "absent.txt", "-o", self.tokens)
        self.refuse(r"good\.txt.*Not a directory", "tokenize", good, "-o", good / "out")
        self.refuse(r"encoding", "tokenize", good, "-o", self.tokens, "--encoding", "ebcdic")
        self.refuse(r"texts", "tokenize", "-o", self.tokens, code=support.EXIT_USAGE)
        self.refuse(r"held-out", "tokenize", good, "-o", self.tokens, "--held-out", "2", code=support.EXIT_USAGE)


if __name__ == "__main__":
    support.main()
