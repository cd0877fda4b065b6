// The head of the page: one run's figures as cards, several runs' side by side, and in which settings they differ.

function describeModel(run) {
  const get = key => setting(run, `model.${key}`);
  const size = `${get('num_hidden_layers')} blocks of width ${get('hidden_size')}`;
  if (get('sub_layers') === 0) return `Dense, ${size}`;
  const cartesian = get('sub_layers') === 2;
  const routing = get('routing') === 'top_p' ? `top-p ${get('moe_top_p')}` : `${get('routing') === 'hash' ? 'hash ' : ''}top-${get('moe_top_k')}`;
  const kind = cartesian ? 'CartesianMoE' : get('grain_level') > 1 ? 'Fine-grained MoE' : 'MoE';
  return `${kind}, ${size}, ${cartesian ? `${get('num_experts')} + ${get('num_experts')}` : get('num_experts')} experts, ${routing}${get('use_residual') === 'true' ? ', shared expert' : ''}`;
}

function lastOf(run, table, key) {
  const values = column(run, table, key);
  return values ? values.last : null;
}

// Mean of the curve's last part: a single step says little.
function lately(run, key) {
  const values = column(run, 'steps', key);
  if (!values) return null;
  const numbers = values.mean.filter(value => value !== null);
  return numbers.length ? mean(numbers.slice(-Math.max(1, Math.ceil(numbers.length / 20)))) : null;
}

function expertCount(run) {
  return run.experts ? run.experts.layer_count * run.experts.groups * run.experts.experts : 0;
}

function deadNow(run) {
  const held_out = lastOf(run, 'validations', 'valid_dead_experts');
  return held_out !== null ? held_out : lastOf(run, 'steps', 'dead_experts');
}

function finished(run) {
  return run.last_step >= setting(run, 'train.steps');
}

function status(run) {
  return finished(run) ? html('span', { class: 'status done', text: 'finished' })
    : html('span', { class: 'status', text: `step ${number(run.last_step, 7)} of ${number(setting(run, 'train.steps'), 7)}` });
}

function tile(label, value, detail, extra) {
  return html('div', { class: 'tile' }, html('div', { class: 'tile-label', text: label }), html('div', { class: 'tile-value', text: value }),
    detail && html('div', { class: 'tile-detail', text: detail }), extra);
}

function perplexityBars(run, perplexity) {
  const rows = [['this model', perplexity, 'var(--held-out)'], ['bigram', run.summary.bigram_perplexity, 'var(--muted-bar)'], ['unigram', run.summary.unigram_perplexity, 'var(--muted-bar)']]
    .filter(([, value]) => Number.isFinite(value));
  const most = Math.max(...rows.map(([, value]) => value));
  return html('div', { class: 'mini-bars' }, rows.map(([name, value, color]) => [html('span', { text: name }),
    html('span', { class: 'bar' }, html('span', { style: `width:${(100 * value / most).toFixed(1)}%;background:${color}` })), html('span', { class: 'figure', text: fixed(value, 2) })]).flat());
}

function tiles(run) {
  const perplexity = lastOf(run, 'validations', 'valid_perplexity');
  const experts = expertCount(run), dead = deadNow(run), median = run.totals.median;
  const seen = run.last_step * tokensPerStep(run);
  return html('div', { class: 'tiles' },
    perplexity !== null ? tile('Held-out perplexity', fixed(perplexity, 3), run.summary ? null : `loss ${fixed(lastOf(run, 'validations', 'valid_loss'), 4)}`, run.summary && perplexityBars(run, perplexity))
      : tile('Training loss', fixed(lately(run, 'loss'), 4), 'mean of the last steps'),
    tile('Speed', `${compact(median.tokens_per_s)} tokens/s`, `median · ${shortTime(median.step_s)} a step · ${percent(median.exchange_share)} in exchange`),
    experts > 0 && tile('Experts in use', number(experts - dead, 7), `of ${number(experts, 7)}, ${dead ? `${number(dead, 7)} dead` : 'none dead'}`),
    experts > 0 && tile('Balancedness', fixed(lately(run, 'balancedness'), 2), 'of the last steps; 1 is even'),
    tile('Training time', duration(run.totals.seconds), `${number(run.last_step, 7)} steps · ${compact(seen)} tokens`));
}

const comparedFigures = [
  ['Held-out perplexity', run => lastOf(run, 'validations', 'valid_perplexity'), value => fixed(value, 3), 'least'],
  ['Held-out loss', run => lastOf(run, 'validations', 'valid_loss'), value => fixed(value, 4), 'least'],
  ['Training loss, lately', run => lately(run, 'loss'), value => fixed(value, 4), 'least'],
  ['Tokens/s, median', run => run.totals.median.tokens_per_s, value => compact(value), 'most'],
  ['Share in exchange, median', run => run.totals.median.exchange_share, value => percent(value, 1), null],
  ['Balancedness, lately', run => (run.experts ? lately(run, 'balancedness') : null), value => fixed(value, 3), 'most'],
  ['Dead experts', run => (run.experts ? deadNow(run) : null), value => number(value), null],
  ['Steps', run => run.last_step, value => number(value, 7), null],
  ['Tokens', run => run.last_step * tokensPerStep(run), value => compact(value), null],
  ['Time in steps', run => run.totals.seconds, value => duration(value), null],
];

function runHead(run) {
  return html('th', { scope: 'col' }, swatch(run.color), html('span', { text: run.name }));
}

function figuresTable() {
  const rows = comparedFigures.map(([name, value, format, best]) => {
    const values = runs.map(value);
    if (values.every(one => one === null || one === undefined)) return null;
    const known = values.filter(Number.isFinite);
    const mark = best && new Set(known).size > 1 ? (best === 'least' ? Math.min(...known) : Math.max(...known)) : NaN;
    return html('tr', {}, html('th', { scope: 'row', text: name }), values.map(one => html('td', { class: one === mark && 'best', text: format(one) })));
  });
  return html('div', { class: 'scroll' }, html('table', { class: 'figures' }, html('thead', {}, html('tr', {}, html('td', {}), runs.map(runHead))), html('tbody', {}, rows)));
}

// Keys whose values differ between runs; where a run lacks one, that is a difference, too.
function differences() {
  const keys = [...new Set(runs.flatMap(run => Object.keys(run.config)))];
  return keys.filter(key => key !== 'run.dir' && new Set(runs.map(run => run.config[key])).size > 1);
}

function differencesTable() {
  const keys = differences();
  if (keys.length === 0) return html('p', { class: 'note', text: 'The runs have the same settings.' });
  return html('div', { class: 'scroll' }, html('table', { class: 'figures settings' }, html('thead', {}, html('tr', {}, html('td', {}), runs.map(runHead))),
    html('tbody', {}, keys.map(key => html('tr', {}, html('th', { scope: 'row' }, html('code', { text: key })), runs.map(run => html('td', { text: run.config[key] ?? '–' })))))));
}

function comparisonSection() {
  return section('comparison', 'Comparison', null,
    card('Final figures', 'The best of each row is in bold.', figuresTable()),
    card('Settings that differ', null, differencesTable()));
}
