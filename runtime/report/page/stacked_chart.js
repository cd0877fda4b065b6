// Seconds of a step by phase, stacked, over steps; and means as bars.

const phaseOrder = ['attention', 'dense_ffn', 'router', 'experts', 'head', 'exchange', 'gradient_sync', 'optimizer', 'other'];
const phaseName = { dense_ffn: 'dense FFN', gradient_sync: 'gradient sums', head: 'head and loss' };

function phaseColor(phase) {
  return phaseOrder.includes(phase) ? `var(--phase-${phase.replaceAll('_', '-')})` : 'var(--phase-other)';
}

function phaseText(phase) {
  return phaseName[phase] || phase.replaceAll('_', ' ');
}

// {phase: seconds by stretch}, in drawing order. What no phase's timer saw counts as other.
function phasesOf(run) {
  const columns = run.steps.columns;
  const known = Object.keys(columns).filter(key => key.startsWith('phase_s.')).map(key => key.slice(8));
  if (known.length === 0) return null;
  const phases = {};
  for (const phase of [...phaseOrder, ...known.filter(name => !phaseOrder.includes(name))]) {
    if (known.includes(phase)) phases[phase] = columns[`phase_s.${phase}`].mean.map(value => value || 0);
  }
  const whole = columns.step_s && columns.step_s.mean;
  if (whole) {
    const timed = Object.values(phases);
    const rest = whole.map((seconds, i) => Math.max(0, (seconds || 0) - timed.reduce((sum, phase) => sum + phase[i], 0)));
    phases.other = phases.other ? phases.other.map((value, i) => value + rest[i]) : rest;
  }
  return phases;
}

function mean(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

// Means over stretches of points: a stack of noisy steps reads as noise.
function thinned(values, count) {
  const parts = Math.min(count, values.length);
  return Array.from({ length: parts }, (_, i) =>
    mean(values.slice(Math.floor(values.length * i / parts), Math.floor(values.length * (i + 1) / parts))));
}

// spec() gives {title, x, layers: [{name, color, values}], share}.
function stackedChart(title, note, spec, options = {}) {
  const place = html('div', { class: 'plot' });
  const draw = width => {
    const now = spec();
    const height = Math.round(Math.max(190, Math.min(260, width * 0.36)));
    const count = Math.max(20, Math.min(120, Math.floor(width / 7)));
    const layers = now.layers.map(layer => ({ ...layer, values: thinned(layer.values, count) }));
    const columns = layers[0].values.length;
    const totals = Array.from({ length: columns }, (_, i) => layers.reduce((sum, layer) => sum + layer.values[i], 0));
    // A rare slow step may stand out of the frame; the rest stays readable.
    const sorted = [...totals].sort((a, b) => a - b);
    const most = now.share ? 1 : Math.min(sorted[columns - 1], sorted[Math.floor((columns - 1) * 0.98)] * 1.15) * 1.04 || 1;
    const format = now.share ? percent : shortTime;
    const yTicks = linearTicks(0, most, 4);
    const left = Math.max(...yTicks.map(tick => format(tick).length)) * 6.6 + 12, right = 10, top = 10, bottom = height - 26;
    // A column stands where its stretch of points ends.
    const ends = Array.from({ length: columns }, (_, i) => now.x[Math.floor(now.x.length * (i + 1) / columns) - 1]);
    const start = ends[0], end = ends[columns - 1] > start ? ends[columns - 1] : start + 1;
    const x = value => left + (value - start) / (end - start) * (width - left - right);
    const place_x = i => (columns === 1 ? left + (width - left - right) / 2 : x(ends[i]));
    const y = value => bottom - Math.min(1, value / most) * (bottom - top);
    const root = svg('svg', { width, height, viewBox: `0 0 ${width} ${height}`, role: 'img', tabindex: 0,
      'aria-label': `${title}. ${layers.map(layer => `${layer.name} ${shortTime(mean(layer.values))}`).join(', ')} a step on average.` });
    let base = new Array(columns).fill(0);
    for (const layer of layers) {
      const over = base.map((value, i) => value + (now.share ? layer.values[i] / (totals[i] || 1) : layer.values[i]));
      const upper = over.map((value, i) => [place_x(i), y(value)]);
      const lower = base.map((value, i) => [place_x(i), y(value)]).reverse();
      root.append(svg('path', { class: 'area', d: `${pathOf(upper)}${pathOf(lower).replace('M', 'L')}Z`, style: `fill:${layer.color}` }));
      base = over;
    }
    drawAxes(root, { width, height, left, right, top, bottom, yTicks, y, format, span: end - start,
      xTicks: axisTicks(start, end, Math.floor((width - left) / 80)), x });
    const cursor = svg('g', { class: 'marks' });
    root.append(cursor);
    let index = columns - 1;
    const show = (clientX, clientY) => {
      cursor.replaceChildren(svg('line', { class: 'cursor', x1: place_x(index), x2: place_x(index), y1: top, y2: bottom }));
      showTooltip(clientX, clientY, `${axisText(ends[index], end - start)} ${axis.mode === 'step' ? 'steps' : ''} · ${shortTime(totals[index])} a step`,
        [...layers].reverse().map(layer => [layer.color, layer.name, `${shortTime(layer.values[index])}  ${percent(layer.values[index] / totals[index])}`]));
    };
    const hide = () => { cursor.replaceChildren(); hideTooltip(); };
    root.addEventListener('pointermove', event => {
      const at = event.clientX - root.getBoundingClientRect().left;
      index = ends.reduce((best, _, i) => (Math.abs(place_x(i) - at) < Math.abs(place_x(best) - at) ? i : best), 0);
      show(event.clientX, event.clientY);
    });
    root.addEventListener('pointerleave', hide);
    root.addEventListener('blur', hide);
    root.addEventListener('keydown', event => {
      const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!move) return;
      event.preventDefault();
      index = Math.max(0, Math.min(columns - 1, index + move));
      const box = root.getBoundingClientRect();
      show(box.left + place_x(index), box.top + top);
    });
    place.replaceChildren(root);
  };
  drawing(place, draw);
  return card(title, note, options.controls, place);
}

// One bar of phases, as wide as its time against the longest.
function phaseBar(phases, longest) {
  const whole = Object.values(phases).reduce((sum, seconds) => sum + seconds, 0);
  return html('div', { class: 'stack', style: `width:${(100 * whole / longest).toFixed(2)}%`, 'aria-hidden': 'true' },
    Object.entries(phases).map(([phase, seconds]) =>
      html('span', { style: `flex-grow:${(1e6 * seconds / whole).toFixed(0)};background:${phaseColor(phase)}`, title: `${phaseText(phase)} ${shortTime(seconds)}` })));
}
