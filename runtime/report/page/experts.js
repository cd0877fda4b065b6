// What the experts do: loads over time, dead ones, and which of A and B are chosen together.

const groupName = ['A', 'B'];

function blockName(run, layer, group) {
  const block = layer * (setting(run, 'model.expert_interval') || 1);
  return group === undefined || run.experts.groups < 2 ? `Block ${block}` : `Block ${block} · ${groupName[group]}`;
}

function loadRatios(history) {
  return history.loads.values.flat(3).map(value => value / 1000);
}

// Of one sub-layer's last column: balancedness, and experts without a token.
function lastColumn(rows) {
  const last = rows.map(row => row[row.length - 1]);
  const most = Math.max(...last);
  return { balancedness: most > 0 ? mean(last) / most : 1, dead: last.filter(value => value === 0).length, last };
}

function stepTicks(steps, width) {
  const [first, last] = [steps[0], steps[steps.length - 1]];
  return linearTicks(first, last, Math.max(2, Math.floor(width / 90))).map(tick => {
    let column = steps.findIndex(step => step >= tick);
    if (column < 0) column = steps.length - 1;
    return [column, number(tick, 6)];
  });
}

function loadMap(run, layerIndex, group, reach) {
  const history = run.experts, rows = history.loads.values[layerIndex][group];
  const { step, from } = history.loads;
  const layer = history.layers[layerIndex], end = lastColumn(rows);
  const name = blockName(run, layer, group);
  const map = heatMap({
    rows: rows.length, columns: step.length, reach,
    ratio: (row, at) => rows[row][at] / 1000,
    read: (row, at) => [`${name}, expert ${row}`, [[null, `steps ${number(from[at] + 1, 7)}–${number(step[at], 7)}`,
      rows[row][at] === 0 ? 'no token' : `${times(rows[row][at] / 1000)} of even`]]],
    rowTicks: idTicks(rows.length), columnTicks: width => stepTicks(step, width),
    cell: width => ({ width: width / step.length, height: rows.length <= 16 ? 12 : rows.length <= 32 ? 8 : Math.max(2, Math.min(6, 320 / rows.length)) }),
    label: `${name}: load of ${rows.length} experts over steps. At the end from ${times(Math.min(...end.last) / 1000)} to ${times(Math.max(...end.last) / 1000)} of an even share, balancedness ${fixed(end.balancedness, 2)}, ${end.dead} dead. Arrow keys read the values.`,
  });
  return html('figure', { class: 'map' }, html('figcaption', {}, html('h4', { text: name }),
    html('span', { class: 'muted', text: `balancedness ${fixed(end.balancedness, 2)}${end.dead ? ` · ${end.dead} dead` : ''}` })), map);
}

function loadsCard(run) {
  const history = run.experts, reach = reachOf(loadRatios(history));
  const maps = history.layers.flatMap((_, i) => Array.from({ length: history.groups }, (__, group) => loadMap(run, i, group, reach)));
  const left_out = history.layer_count - history.layers.length;
  return card('Load of every expert', `Choices of each expert against an even share, from the first step to the last; figures beside a name are of the end.${left_out ? ` ${history.layers.length} of ${history.layer_count} layers are shown.` : ''}`,
    scaleLegend(reach, 'load, of even', 'no token'), html('div', { class: 'maps' }, maps));
}

// Dead experts of every shown sub-layer by column; null if there never were any.
function deadBySubLayer(run) {
  const history = run.experts;
  const series = history.layers.flatMap((layer, i) => history.loads.values[i].map((rows, group) => ({
    name: blockName(run, layer, group),
    counts: history.loads.step.map((_, at) => rows.filter(row => row[at] === 0).length) })));
  return series.some(({ counts }) => counts.some(count => count > 0)) ? series : null;
}

function deadCard(run) {
  const history = run.experts, series = deadBySubLayer(run);
  if (!series) {
    return card('Dead experts', null, html('p', { class: 'good', text: `None: in every interval of steps shown, each of the ${history.layers.length * history.groups * history.experts} experts received tokens.` }));
  }
  const rows = series.filter(({ counts }) => counts.some(count => count > 0));
  const last = history.loads.step.length - 1;
  return card('Dead experts', 'Experts without a token in an interval of steps, by sub-layer: now, at worst, and for how much of the run there were any.',
    html('div', { class: 'scroll' }, html('table', { class: 'figures' },
      html('thead', {}, html('tr', {}, ['sub-layer', 'now', 'most', 'of the run'].map(text => html('th', { scope: 'col', text })))),
      html('tbody', {}, rows.map(({ name, counts }) => html('tr', {}, html('th', { scope: 'row', text: name }),
        html('td', { text: `${counts[last]} of ${history.experts}` }), html('td', { text: String(Math.max(...counts)) }),
        html('td', { text: percent(counts.filter(count => count > 0).length / counts.length) })))))));
}

// Ratios to independence, bits of mutual information, and the strongest pairs of a matrix of shares.
function coActivation(values) {
  const whole = values.flat().reduce((sum, value) => sum + value, 0) || 1;
  const p = values.map(row => row.map(value => value / whole));
  const a = p.map(row => row.reduce((sum, value) => sum + value, 0));
  const b = p[0].map((_, j) => p.reduce((sum, row) => sum + row[j], 0));
  const ratio = p.map((row, i) => row.map((value, j) => (a[i] * b[j] > 0 ? value / (a[i] * b[j]) : 1)));
  const bits = p.reduce((sum, row, i) => sum + row.reduce((part, value, j) => part + (value > 0 ? value * Math.log2(ratio[i][j]) : 0), 0), 0);
  const pairs = ratio.flatMap((row, i) => row.map((value, j) => ({ i, j, ratio: value, share: p[i][j] })));
  // Weighed by how much they matter: a rare pair's ratio is mostly noise.
  const strongest = pairs.filter(pair => pair.ratio > 1).sort((x, y) => y.share * Math.log2(y.ratio) - x.share * Math.log2(x.ratio)).slice(0, 3);
  return { ratio, share: p, bits: Math.max(0, bits), strongest };
}

function pairMap(run, layerIndex, state) {
  const history = run.experts, name = blockName(run, history.layers[layerIndex]), count = history.experts;
  const text = html('p', { class: 'note pairs' });
  const map = heatMap(() => {
    const co = coActivation(history.pairs[state.slice].values[layerIndex]);
    text.textContent = `${number(co.bits, 2)} bits of mutual information. Strongest: ${co.strongest.map(({ i, j, ratio }) => `A${i}–B${j} ${times(ratio)}`).join(', ') || 'none'}.`;
    return {
      rows: count, columns: count, reach: state.reach,
      ratio: (row, at) => co.ratio[row][at],
      read: (row, at) => [`${name}: A${row} and B${at}`, [[null, 'against chance', co.share[row][at] === 0 ? 'never together' : times(co.ratio[row][at])],
        [null, 'of all pairs', percent(co.share[row][at], 2)]]],
      rowTicks: idTicks(count).map(([row, id]) => [row, `A${id}`]), columnTicks: () => idTicks(count).map(([at, id]) => [at, `B${id}`]),
      cell: width => { const size = Math.min(width, 420) / count; return { width: size, height: size, gap: 1 }; },
      label: `${name}: how often experts of A and B are chosen by the same token, against chance. ${text.textContent} Arrow keys read the values.`,
    };
  });
  return html('figure', { class: 'map' }, html('figcaption', {}, html('h4', { text: name })), map, text);
}

function pairsCard(run) {
  const history = run.experts;
  if (history.pairs.length === 0) return null;
  const ratios = history.pairs.flatMap(slice => slice.values.flatMap(values => coActivation(values).ratio.flat()));
  const state = { slice: history.pairs.length - 1, reach: reachOf(ratios) };
  const steps = () => { const { from, step } = history.pairs[state.slice]; return `steps ${number(from + 1, 7)}–${number(step, 7)}`; };
  const shown = html('output', { text: steps() });
  const slider = history.pairs.length > 1 && html('label', { class: 'slider' }, html('span', { text: 'Interval' }),
    html('input', { type: 'range', min: 0, max: history.pairs.length - 1, value: state.slice, step: 1, 'aria-label': 'Interval of steps',
      oninput: event => { state.slice = Number(event.target.value); shown.textContent = steps(); redrawAll(); } }), shown);
  return card('A × B: which experts work together', 'Tokens that chose expert i of A and expert j of B, against what independent choices would give.',
    html('div', { class: 'card-controls' }, scaleLegend(state.reach, 'pairs, of chance', 'never'), slider),
    html('div', { class: 'maps squares' }, history.layers.map((_, i) => pairMap(run, i, state))));
}

function expertViews(run) {
  if (!run.experts) {
    return html('p', { class: 'note', text: setting(run, 'model.sub_layers') === 0 ? 'A dense model has no experts.' : 'This run has no experts.jsonl, or nothing in it yet.' });
  }
  return [loadsCard(run), pairsCard(run), deadCard(run)];
}

function expertsSection() {
  const any = runs.some(run => run.experts);
  const part = section('experts', 'Experts', null,
    any && html('div', { class: 'grid two' },
      has('balancedness') && lineChart('Balancedness', 'Mean load over largest load, mean of all sub-layers; 1 is even.', () => ({
        zero: true, top: 1, format: value => fixed(value, 3), series: seriesOf('balancedness', 'steps', several ? {} : { name: 'balancedness' }) }), { legend: runLegend() }),
      has('dead_experts') && lineChart('Dead experts in a step', 'Experts that no token of a step chose, all sub-layers together.', () => ({
        zero: true, top: 1, format: value => number(value), series: seriesOf('dead_experts', 'steps', { ...(several ? {} : { name: 'dead experts' }), smooth: false }) }))),
    ofChosenRun(expertViews));
  const chooser = any && runChooser();
  if (chooser) part.querySelector('.section-head').append(chooser);
  return part;
}
