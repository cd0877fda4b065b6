// The page, from top to bottom.

function pageHead() {
  const head = document.getElementById('head');
  const mark = html('div', { class: 'wordmark' }, html('span', { class: 'mark', 'aria-hidden': 'true' }), html('span', { text: 'Cartesian' }));
  if (several) {
    append(head, [mark, html('h1', { text: `${runs.length} runs compared` }), html('ul', { class: 'run-list' }, runs.map(run =>
      html('li', {}, swatch(run.color), html('div', {}, html('div', {}, html('strong', { text: run.name }), ' ', status(run)), html('div', { class: 'muted', text: describeModel(run) })))))]);
  } else {
    append(head, [mark, html('h1', {}, html('span', { text: runs[0].name }), ' ', status(runs[0])), html('p', { class: 'note', text: describeModel(runs[0]) }), tiles(runs[0])]);
  }
}

function build() {
  pageHead();
  const parts = [several && comparisonSection(), learningSection(), speedSection(), expertsSection(), setupSection()].filter(Boolean);
  append(document.getElementById('main'), parts);
  append(document.getElementById('sections'), parts.map(part => html('a', { href: `#${part.id}`, text: part.querySelector('h2').textContent.replace('Configuration and environment', 'Setup') })));
  append(document.getElementById('foot'), [html('span', { text: `Written by cartesian ${data.version} from ${runs.map(run => run.path).join(', ')}` })]);
}

build();
drawNew();
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redrawAll);
// Paper is light, whatever the screen is, and shows what is folded away.
addEventListener('beforeprint', () => { document.documentElement.classList.add('print'); document.querySelectorAll('details').forEach(one => { one.open = true; }); redrawAll(); });
addEventListener('afterprint', () => { document.documentElement.classList.remove('print'); redrawAll(); });
