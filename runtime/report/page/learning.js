// What the model has learned: losses, held-out perplexity, and what drives them.

const data = JSON.parse(document.getElementById('data').textContent);
const runs = data.runs;
runs.forEach((run, i) => { run.color = `var(--run-${i % 8})`; });
const several = runs.length > 1;

function setting(run, key) {
  const text = run.config[key];
  if (text === undefined) return undefined;
  const value = Number(text);
  return text !== '' && Number.isFinite(value) ? value : text.replace(/^(['"])(.*)\1$/, '$2');
}

function tokensPerStep(run) {
  return setting(run, 'train.batch_sequences') * setting(run, 'train.sequence_length');
}

// Positions of a table's rows on the axis that the reader has chosen.
function positions(run, table) {
  if (axis.mode === 'tokens') return table.step.map(step => step * tokensPerStep(run));
  if (axis.mode === 'step') return table.step;
  const { step, seconds } = run.steps;
  return table.step.map(wanted => {  // a validation's time is that of its step
    let i = 0;
    while (i < step.length - 1 && step[i] < wanted) ++i;
    return seconds[i];
  });
}

function column(run, table, key) {
  return run[table].columns[key];
}

// One series a run, of runs that have the column.
function seriesOf(key, table = 'steps', more = {}) {
  return runs.filter(run => column(run, table, key)).map(run => ({
    name: run.name, color: run.color, x: positions(run, run[table]), y: column(run, table, key).mean,
    min: column(run, table, key).min, max: column(run, table, key).max, ...more }));
}

function has(key, table = 'steps') {
  return runs.some(run => column(run, table, key));
}

function runLegend() {
  return several ? legend(runs.map(run => [run.color, run.name])) : null;
}

function perplexityReferences() {
  const summary = runs.map(run => run.summary).find(Boolean);
  if (!summary) return [];
  const of = runs.find(run => run.summary);
  const same = runs.every(run => (run.summary ? Math.abs(run.summary.bigram_perplexity - summary.bigram_perplexity) < 1e-9
    : ['data.train', 'data.valid'].every(key => run.config[key] === of.config[key])));
  if (!same) return [];  // other data: one line would be wrong for some
  return [{ name: 'unigram', value: summary.unigram_perplexity }, { name: 'bigram', value: summary.bigram_perplexity }]
    .filter(reference => Number.isFinite(reference.value));
}

function lossChart() {
  return lineChart('Loss', several ? 'Mean cross-entropy of each step, smoothed.' : 'Mean cross-entropy of each step, smoothed, and on held-out text.', () => ({
    log: true, format: value => fixed(value, 4),
    series: several ? seriesOf('loss')
      : [...seriesOf('loss', 'steps', { name: 'training' }),
        ...seriesOf('valid_loss', 'validations', { name: 'held-out', color: 'var(--held-out)', points: true, min: undefined, max: undefined })],
  }), { legend: several ? runLegend() : has('valid_loss', 'validations') && legend([[runs[0].color, 'training'], ['var(--held-out)', 'held-out']]) });
}

function perplexityChart() {
  return lineChart('Held-out perplexity', perplexityReferences().length ? 'Dashed: simple models of the same training tokens.' : null, () => ({
    log: true, format: value => fixed(value, 3), references: perplexityReferences(),
    domain: runs.flatMap(run => positions(run, run.steps)),
    series: seriesOf('valid_perplexity', 'validations', { points: true, min: undefined, max: undefined,
      ...(several ? {} : { name: 'perplexity', color: 'var(--held-out)' }) }),
  }), { legend: runLegend() });
}

// Curves of the metrics that have one, drawn alike.
const simpleCurves = [
  ['learning_rate', 'Learning rate', null, { format: value => number(value), zero: true, more: { smooth: false, min: undefined, max: undefined } }],
  ['gradient_norm', 'Gradient norm', 'Before clipping.', { format: value => number(value), log: true }],
  ['balance_loss', 'Load-balancing loss', 'When loads are even, 1 for each sub-layer.', { format: value => fixed(value, 4) }],
  ['z_loss', 'Router z-loss', 'Of all sub-layers, whether it is used or not.', { format: value => number(value) }],
  ['largest_router_bias', 'Largest router bias', 'Of auxiliary-loss-free balancing.', { format: value => number(value), zero: true }],
];

// Nothing to see where a method is not used: all zeros.
function used(key) {
  return runs.some(run => column(run, 'steps', key) && column(run, 'steps', key).mean.some(value => value));
}

function simpleCurve([key, title, note, options]) {
  return used(key) && lineChart(title, note, () => ({ ...options, series: seriesOf(key, 'steps', { ...(several ? {} : { name: title.toLowerCase() }), ...options.more }) }));
}

function learningSection() {
  const control = choice('Horizontal axis', [['step', 'Steps'], ['tokens', 'Tokens'], ['seconds', 'Time']], axis.mode, mode => {
    axis.mode = mode;
    redrawAll();
  });
  const part = section('learning', 'Learning', null,
    html('div', { class: 'grid two' }, lossChart(), has('valid_perplexity', 'validations') && perplexityChart()),
    html('div', { class: 'grid three' }, simpleCurves.map(simpleCurve)));
  part.querySelector('.section-head').append(control);
  return part;
}
