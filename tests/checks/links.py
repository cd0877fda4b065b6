#!/usr/bin/env python3
"""Checks that what the Markdown pages link to, and the files that they name in code spans, exist."""

import re

import tree

LINK = re.compile(r"\]\(([^)#\s]*)(#[^)\s]*)?\)")
CODE_SPAN = re.compile(r"`([^`\s]+)`")
# A code span names a file of the repository if it begins with one of its folders and ends like a file.
FILE_NAME = re.compile(r"^(base|kernels|comm|planner|scheduler|runtime|tests|bench|cluster|configs|docs|cmake)/[\w./]+\.\w+$")
HEADING = re.compile(r"^#+\s+(.*)$")


def anchors(path):
    headings = (HEADING.match(line) for line in tree.lines(path))
    texts = (heading.group(1).lower() for heading in headings if heading)
    return {re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-") for text in texts}


def check_page(page, problems):
    for number, line in enumerate(tree.lines(page), 1):
        where = f"{page}:{number}"
        for target, anchor in LINK.findall(line):
            if re.match(r"[a-z]+:", target):
                continue
            linked = page.parent / target if target else page
            if not (tree.ROOT / linked).exists():
                problems.append(f"{where}: links to {target}, which does not exist")
            elif anchor and linked.suffix == ".md" and anchor[1:] not in anchors(linked):
                problems.append(f"{where}: {target} has no heading {anchor}")
        for name in CODE_SPAN.findall(line):
            if FILE_NAME.match(name) and not (tree.ROOT / name).exists():
                problems.append(f"{where}: names {name}, which does not exist")


def main():
    problems = []
    pages = tree.files(".md")
    for page in pages:
        check_page(page, problems)
    tree.finish(problems, f"{len(pages)} pages")


main()
