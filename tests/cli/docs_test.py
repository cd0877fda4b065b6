"""What the pages say about the program, against the program."""

import pathlib
import re
import unittest

from harness import CliTest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


class Docs(CliTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.listing = cls.run_program("train", "--keys").out

    def known_keys(self):
        section, keys = "", set()
        for line in self.listing.splitlines():
            if line.startswith("["):
                section = line.strip("[]")
            elif "=" in line:
                keys.add(f"{section}.{line.split('=')[0].strip()}")
        return keys

    def test_configuration_page_lists_the_keys(self):
        page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
        listed = re.search(r"```toml\n(.*?)```", page, re.DOTALL).group(1)
        self.assertEqual(listed.strip(), self.listing.strip(), "docs/configuration.md: paste `cartesian train --keys`")

    def test_keys_that_pages_name_exist(self):
        keys = self.known_keys()
        sections = {key.split(".")[0] for key in keys}
        for page in PAGES:
            text = page.read_text(encoding="utf-8")
            named = set(re.findall(r"(?:`|--set )((?:%s)\.[a-z_]+)\b(?![./-])" % "|".join(sections), text))
            files = {name for name in named if name.endswith((".json", ".jsonl", ".safetensors", ".toml", ".md"))}
            tensors = {name for name in named if name.startswith(("model.embed", "model.layers", "model.norm"))}
            self.assertLessEqual(named - files - tensors, keys, page.name)

    def test_shipped_configurations_are_accepted(self):
        for path in sorted((ROOT / "configs").glob("*.toml")):
            with self.subTest(config=path.name):
                settings = ("--set", "data.train=nowhere", "--set", f"run.dir={self.folder / 'run'}")
                self.assert_refused(("train", path, *settings), "nowhere")


if __name__ == "__main__":
    unittest.main(verbosity=2)
