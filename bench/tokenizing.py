#!/usr/bin/env python3
"""`cartesian tokenize` against SentencePiece's own command, on the same text with the same model, in paired rounds.

  python3 bench/tokenizing.py build/release/runtime/cartesian data/corpora/*.txt [--vocabulary 8000] [--threads 1 2] [--rounds 5]

spm_encode (Debian's package sentencepiece) has no option for threads: on n threads it runs as n processes, each on its part of the
text. It splits text into lines, ours into documents; both write ids. Prints the median over rounds of each, in MB of text per second of
wall time, and of the ratio pair by pair.
"""
import argparse
import os
import statistics
import subprocess
import tempfile
import time


def run(commands):
    """Runs the commands side by side; the wall time until all have ended."""
    start = time.monotonic()
    children = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for command in commands]
    codes = [child.wait() for child in children]
    if any(codes):
        raise SystemExit("failed: %s" % commands[0])
    return time.monotonic() - start


def split_lines(text, parts):
    """`text` in parts of about the same size, cut at line ends."""
    pieces, begin = [], 0
    for part in range(parts):
        end = len(text) if part == parts - 1 else text.index(b"\n", len(text) * (part + 1) // parts) + 1
        pieces.append(text[begin:end])
        begin = end
    return pieces


def compare(args, folder, kind, threads, text):
    model = os.path.join(folder, kind + ".tokenizer.model")
    inputs = []
    for part, piece in enumerate(split_lines(text, threads)):
        inputs.append(os.path.join(folder, "part%d.txt" % part))
        with open(inputs[-1], "wb") as file:
            file.write(piece)
    theirs = [["spm_encode", "--model=" + model, "--output_format=id", "--input=" + path, "--output=" + path + ".ids"]
              for path in inputs]
    ours = [[args.cartesian, "tokenize", os.path.join(folder, "text.txt"), "-o", os.path.join(folder, "ours"), "--model", model,
             "--threads", str(threads)]]
    pairs = []
    for _ in range(args.rounds):
        seconds = run(ours), run(theirs)
        pairs.append([len(text) / 1e6 / s for s in seconds])
    print("%-8s %d thread(s)   ours %6.2f MB/s   spm_encode %6.2f MB/s   ratio %.2f   (rounds %s)" % (
        kind, threads, statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs),
        statistics.median(p[0] / p[1] for p in pairs), ", ".join("%.2f" % (p[0] / p[1]) for p in pairs)), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cartesian", help="the executable")
    parser.add_argument("texts", nargs="+", help="text files, of some megabytes")
    parser.add_argument("--vocabulary", type=int, default=8000)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    text = b""
    for path in args.texts:
        with open(path, "rb") as file:
            text += file.read()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "text.txt")
        with open(path, "wb") as file:
            file.write(text)
        for kind in ("bpe", "unigram"):
            subprocess.run([args.cartesian, "tokenize", path, "-o", os.path.join(folder, kind), "--vocabulary",
                            str(args.vocabulary), "--model-type", kind], check=True, stdout=subprocess.DEVNULL)
            for threads in args.threads:
                compare(args, folder, kind, threads, text)


if __name__ == "__main__":
    main()
