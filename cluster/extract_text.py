#!/usr/bin/env python3
"""Prints the text inside a packaged corpus as clean UTF-8 (see cluster/corpora.sh).

usage: extract_text.py plain FILE        text in UTF-8 or Latin-1
       extract_text.py rdb FILE.rdb      character vectors of an R lazy-load database
       extract_text.py dict STEM         dictd's STEM.dict.dz and STEM.index

Cleaning: invalid UTF-8 is read as Latin-1, line ends become \\n, trailing blanks go, runs of more than two
empty lines become two, and what stands outside Project Gutenberg's START and END lines is dropped.
"""

import gzip
import re
import sys
import zlib

# R's serialization in its XDR form ("R Internals", section 1.8): big-endian integers; an item is a word of flags,
# whose low byte is the type, then its contents.
STRING_VECTOR = 16  # STRSXP: length, then that many CHARSXP
STRING = 9  # CHARSXP: length in bytes (-1: NA), then the bytes
HAS_ATTRIBUTES = 0x200


def r_objects(database):
    """Yields the serialized objects of a lazy-load database: each has 4 bytes of length, then a zlib stream."""
    position = 0
    while position < len(database):
        stream = zlib.decompressobj()
        yield stream.decompress(database[position + 4 :])
        position = len(database) - len(stream.unused_data)


def r_strings(item):
    """Returns the strings of a serialized character vector, or none if it is something else."""

    def word(at):
        return int.from_bytes(item[at : at + 4], "big", signed=True)

    if item[:2] != b"X\n":
        return []
    # Version, two R versions; version 3 adds the name of the native encoding.
    position = 14 + (4 + word(14) if word(2) >= 3 else 0)
    if word(position) & 0xFF != STRING_VECTOR:
        return []
    strings = []
    count = word(position + 4)
    position += 8
    for _ in range(count):
        if word(position) & 0xFF != STRING:
            raise ValueError("a character vector holds something that is not a string")
        length = max(word(position + 4), 0)
        strings.append(item[position + 8 : position + 8 + length])
        position += 8 + length
    return strings


def read_rdb(path):
    with open(path, "rb") as file:
        database = file.read()
    texts = [b"\n".join(r_strings(item)) for item in r_objects(database)]
    return b"\n\n\n".join(text for text in texts if text)


def read_dict(stem):
    """The articles of a dictd dictionary in their order in the file, without its descriptions of itself."""
    digits = {c: i for i, c in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")}

    def number(text):
        value = 0
        for digit in text:
            value = value * 64 + digits[digit]
        return value

    with gzip.open(stem + ".dict.dz") as file:
        contents = file.read()
    articles = set()
    with open(stem + ".index", encoding="utf-8") as file:
        for line in file:
            word, offset, length = line.rstrip("\n").split("\t")[:3]
            if not word.startswith(("00-", "00database")):
                articles.add((number(offset), number(length)))
    return b"\n".join(contents[offset : offset + length] for offset, length in sorted(articles))


def read_plain(path):
    with open(path, "rb") as file:
        return file.read()


def decode(line):
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return line.decode("latin-1")


def without_boilerplate(text):
    start = re.search(r"^\*\*\* ?START OF TH(E|IS) PROJECT GUTENBERG.*\n(\s*Produced by .*)?", text, re.MULTILINE)
    end = re.search(r"^(\*\*\* ?END OF TH(E|IS)|End of (the )?)PROJECT GUTENBERG", text, re.MULTILINE | re.IGNORECASE)
    return text[start.end() if start else 0 : end.start() if end else len(text)]


def clean(raw):
    lines = (decode(line).rstrip() for line in raw.removeprefix(b"\xef\xbb\xbf").splitlines())
    text = without_boilerplate("\n".join(lines))
    return re.sub(r"\n{4,}", "\n\n\n", text).strip("\n") + "\n"


def main():
    readers = {"plain": read_plain, "rdb": read_rdb, "dict": read_dict}
    if len(sys.argv) != 3 or sys.argv[1] not in readers:
        sys.exit(__doc__)
    sys.stdout.buffer.write(clean(readers[sys.argv[1]](sys.argv[2])).encode("utf-8"))


if __name__ == "__main__":
    main()
