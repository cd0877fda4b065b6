// Where the time goes.

const chosen = { run: runs[0], share: false };
const chosenViews = [];

// What shows one run, drawn again when the reader chooses another.
function ofChosenRun(make) {
  const place = html('div', { class: 'of-run' });
  const view = () => place.replaceChildren(...[make(chosen.run)].flat().filter(Boolean));
  chosenViews.push(view);
  view();
  return place;
}

function runChooser() {
  if (!several) return null;
  const select = html('select', { 'aria-label': 'Run shown below', onchange: event => {
    chosen.run = runs[event.target.selectedIndex];
    for (const other of document.querySelectorAll('select.run')) other.selectedIndex = event.target.selectedIndex;
    chosenViews.forEach(view => view());
    drawNew();
  } }, runs.map(run => html('option', { text: run.name })));
  select.className = 'run';
  return select;
}

function meanPhases(run) {
  const phases = phasesOf(run);
  return phases && Object.fromEntries(Object.entries(phases).map(([phase, values]) => [phase, mean(values)]).filter(([, seconds]) => seconds > 0));
}

function phaseTable(run) {
  const phases = meanPhases(run);
  if (!phases || Object.keys(phases).length === 0) return null;
  const whole = Object.values(phases).reduce((sum, seconds) => sum + seconds, 0);
  const most = Math.max(...Object.values(phases));
  return card('An average step', `${shortTime(whole)} on rank 0, by phase.`,
    html('table', { class: 'bars' }, html('tbody', {}, Object.entries(phases).map(([phase, seconds]) => html('tr', {},
      html('th', { scope: 'row' }, swatch(phaseColor(phase)), html('span', { text: phaseText(phase) })),
      html('td', { class: 'bar' }, html('span', { style: `width:${(100 * seconds / most).toFixed(1)}%;background:${phaseColor(phase)}` })),
      html('td', { text: shortTime(seconds) }), html('td', { text: percent(seconds / whole) }))))));
}

function phaseComparison() {
  const all = runs.map(run => [run, meanPhases(run)]).filter(([, phases]) => phases && Object.keys(phases).length > 0);
  if (all.length === 0) return null;
  const whole = phases => Object.values(phases).reduce((sum, seconds) => sum + seconds, 0);
  const longest = Math.max(...all.map(([, phases]) => whole(phases)));
  const names = [...new Set(all.flatMap(([, phases]) => Object.keys(phases)))];
  return card('An average step', 'On rank 0, by phase.', legend(names.map(phase => [phaseColor(phase), phaseText(phase)])),
    html('div', { class: 'run-bars' }, all.map(([run, phases]) => html('div', { class: 'run-bar' },
      html('div', { class: 'run-bar-name' }, swatch(run.color), html('span', { text: run.name }), html('span', { class: 'muted', text: shortTime(whole(phases)) })),
      phaseBar(phases, longest)))));
}

function phaseChart(run) {
  const phases = phasesOf(run);
  if (!phases) return null;
  const shown = Object.entries(phases).filter(([, values]) => mean(values) > 0);
  if (shown.length === 0) return null;
  return stackedChart('Time by phase', several ? run.name : 'Seconds of a step on rank 0.', () => ({
    x: positions(run, run.steps), share: chosen.share,
    layers: shown.map(([phase, values]) => ({ name: phaseText(phase), color: phaseColor(phase), values })),
  }), { controls: html('div', { class: 'card-controls' },
    choice('Unit', [[false, 'Seconds'], [true, 'Share']], chosen.share, share => { chosen.share = share; redrawAll(); })) });
}

function speedSection() {
  const part = section('speed', 'Speed', null,
    html('div', { class: 'grid two' },
      has('tokens_per_s') && lineChart('Tokens per second', 'All ranks together.', () => ({
        zero: true, format: value => number(value), tickFormat: compact,
        series: seriesOf('tokens_per_s', 'steps', several ? {} : { name: 'tokens/s' }) }), { legend: runLegend() }),
      has('exchange_share') && lineChart('Share of time in exchange', 'Token exchange and sums of gradients, on rank 0.', () => ({
        zero: true, format: value => percent(value, 1), tickFormat: percent,
        series: seriesOf('exchange_share', 'steps', several ? {} : { name: 'exchange' }) }))),
    html('div', { class: 'grid wide-narrow' }, ofChosenRun(phaseChart), several ? phaseComparison() : phaseTable(runs[0])));
  const chooser = runChooser();
  if (chooser) part.querySelector('.section-head').append(chooser);
  return part;
}
