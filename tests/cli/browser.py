"""Opens a page in a headless browser at a given width and says what is there."""

import html
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

# Runs in a copy of the page, before its own script and after it. A browser's window is never as narrow as a phone, so the
# page stands in a frame, and tells the page around it what it sees.
WATCH = """<script>const errors = [];
addEventListener('error', event => errors.push(String(event.message)));
addEventListener('securitypolicyviolation', event => errors.push('refused: ' + event.blockedURI));</script>"""
TELL = """<script>
function overlaps() {
  const found = [];
  for (const chart of document.querySelectorAll('svg[role=img]')) {
    const boxes = [...chart.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect()]);
    boxes.forEach(([a, one], i) => boxes.slice(i + 1).forEach(([b, two]) => {
      if (Math.min(one.right, two.right) - Math.max(one.left, two.left) > 1 && Math.min(one.bottom, two.bottom) - Math.max(one.top, two.top) > 3)
        found.push(chart.closest('figure').querySelector('h3').textContent + ': ' + a + ' / ' + b);
    }));
  }
  return found;
}
function count(selector) { return document.querySelectorAll(selector).length; }
addEventListener('load', () => setTimeout(() => {
  document.querySelectorAll('details').forEach(one => { one.open = true; });
  for (const chart of document.querySelectorAll('svg[role=img], canvas[role=img]')) {
    const box = chart.getBoundingClientRect();
    chart.dispatchEvent(new PointerEvent('pointermove', { clientX: box.left + box.width / 2, clientY: box.top + box.height / 2 }));
    chart.dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowLeft' }));
  }
  document.querySelectorAll('button').forEach(button => button.click());
  document.querySelectorAll('input[type=range]').forEach(input => { input.value = 0; input.dispatchEvent(new Event('input')); });
  document.querySelectorAll('select').forEach(select => { select.selectedIndex = select.options.length - 1; select.dispatchEvent(new Event('change')); });
  setTimeout(() => parent.postMessage(JSON.stringify({ errors, overlaps: overlaps(), scrollWidth: document.documentElement.scrollWidth,
    counts: Object.fromEntries(['svg[role=img]', 'canvas[role=img]', '.tile', 'section', 'details', 'table.figures'].map(selector => [selector, count(selector)])) }), '*'), 300);
}, 300));</script>"""
AROUND = """<!doctype html><body style="margin:0"><pre id="seen"></pre>
<script>addEventListener('message', event => { document.getElementById('seen').textContent = event.data; });</script>
<iframe src="page.html" style="border:0;width:%dpx;height:4000px"></iframe>"""


def find_browser():
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


def open_page(page, width):
    """What the page says after every chart, button and slider was tried; None without a browser."""
    program = find_browser()
    if program is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        text = page.read_text(encoding="utf-8")
        folder = pathlib.Path(folder)
        (folder / "page.html").write_text(text.replace("</head>", WATCH + "</head>", 1).replace("</body>", TELL + "</body>"),
                                          encoding="utf-8")
        (folder / "around.html").write_text(AROUND % width)
        command = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={folder / 'profile'}",
                   f"--window-size={max(500, width)},900", "--virtual-time-budget=5000", "--dump-dom", f"file://{folder / 'around.html'}"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False,
                                env=dict(os.environ, HOME=str(folder)))
    found = re.search(r'<pre id="seen">(.*?)</pre>', result.stdout, re.DOTALL)
    if not found or not found.group(1):
        raise AssertionError(f"the page said nothing at {width} pixels\n{result.stdout[:2000]}\n{result.stderr[-2000:]}")
    return json.loads(html.unescape(found.group(1)))
