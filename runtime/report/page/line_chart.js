// Lines over steps, tokens or time: raw values faint or as a band of extremes, a smoothed line on top, points where there
// are few, dashed lines for what the values are to be compared with.

const axis = { mode: 'step' };

// [first, last] of finite values, all series together.
function extent(lists) {
  let low = Infinity, high = -Infinity;
  for (const list of lists) {
    for (const value of list) {
      if (value !== null && Number.isFinite(value)) {
        low = Math.min(low, value);
        high = Math.max(high, value);
      }
    }
  }
  return [low, high];
}

// A centred average that weighs neighbours more: what the eye would draw.
function smooth(values, share = 0.04) {
  const half = Math.floor(values.length * share / 2);
  if (half === 0) return values;
  return values.map((value, i) => {
    if (value === null) return null;
    const reach = Math.min(half, i, values.length - 1 - i);
    let sum = 0, weights = 0;
    for (let j = i - reach; j <= i + reach; ++j) {
      const weight = reach + 1 - Math.abs(i - j);
      if (values[j] !== null) { sum += weight * values[j]; weights += weight; }
    }
    return sum / weights;
  });
}

function pathOf(points) {
  let path = '', open = false;
  for (const point of points) {
    if (!point) { open = false; continue; }
    path += `${open ? 'L' : 'M'}${point[0].toFixed(1)} ${point[1].toFixed(1)}`;
    open = true;
  }
  return path;
}

function scaleY(spec, low, high, top, bottom) {
  if (spec.log && low > 0) {
    const [from, to] = [Math.log(low), Math.log(high)];
    return value => bottom - (Math.log(value) - from) / (to - from) * (bottom - top);
  }
  return value => bottom - (value - low) / (high - low) * (bottom - top);
}

function rangeY(spec) {
  const lists = spec.series.flatMap(series => [series.y, series.min || [], series.max || []]);
  let [low, high] = extent([...lists, (spec.references || []).map(reference => reference.value)]);
  if (!Number.isFinite(low)) return [0, 1];
  if (spec.zero) low = Math.min(0, low);
  if (spec.top !== undefined) high = Math.max(spec.top, high);
  if (spec.log && low > 0) {
    const ratio = Math.max(1.02, high / low);
    return [low / ratio ** 0.04, high * ratio ** 0.04];
  }
  const pad = (high - low || Math.abs(high) || 1) * 0.05;
  return [spec.zero && low === 0 ? 0 : low - pad, spec.top !== undefined && high === spec.top ? high : high + pad];
}

function axisTicks(low, high, count) {
  if (axis.mode === 'seconds') return timeTicks(low, high, count);
  return linearTicks(low, high, count).filter(tick => axis.mode !== 'step' || Number.isInteger(tick));
}

function axisText(value, span) {
  if (axis.mode === 'seconds') return clock(value, span);
  return axis.mode === 'tokens' ? compact(value) : value >= 1e5 ? compact(value) : number(value, 6);
}

const axisName = { step: 'step', tokens: 'tokens', seconds: 'time in steps' };

// Grid, ticks and labels; returns where things are.
function drawAxes(root, frame) {
  const { width, height, left, right, top, bottom, yTicks, y, format, xTicks, x, span } = frame;
  for (const tick of yTicks) {
    const at = y(tick);
    if (at < top - 1 || at > bottom + 1) continue;
    root.append(svg('line', { class: 'grid', x1: left, x2: width - right, y1: at, y2: at }),
      svg('text', { class: 'tick', x: left - 6, y: at + 4, 'text-anchor': 'end', text: format(tick) }));
  }
  root.append(svg('line', { class: 'axis', x1: left, x2: width - right, y1: bottom, y2: bottom }));
  const name = axisName[axis.mode];
  const nameWidth = name.length * 6 + 14;
  for (const tick of xTicks) {
    const at = x(tick), text = axisText(tick, span);
    const half = text.length * 3.4;
    if (at + half > width - right - nameWidth) continue;
    root.append(svg('text', { class: 'tick', x: Math.max(at, left - 4 + half), y: bottom + 17, 'text-anchor': 'middle', text }));
  }
  root.append(svg('text', { class: 'tick axis-name', x: width - right, y: bottom + 17, 'text-anchor': 'end', text: name }));
}

function drawReferences(root, spec, frame) {
  let last = -Infinity;
  for (const reference of [...(spec.references || [])].sort((a, b) => frame.y(a.value) - frame.y(b.value))) {
    const at = frame.y(reference.value);
    root.append(svg('line', { class: 'reference', x1: frame.left, x2: frame.width - frame.right, y1: at, y2: at }));
    if (at - last > 14) {
      root.append(svg('text', { class: 'reference-name', x: frame.width - frame.right, y: at - 5, 'text-anchor': 'end',
        text: `${reference.name} ${spec.format(reference.value)}` }));
      last = at;
    }
  }
}

function drawSeries(root, series, frame) {
  const at = (values, i) => values[i] === null || values[i] === undefined || (frame.log && values[i] <= 0)
    ? null : [frame.x(series.x[i]), frame.y(values[i])];
  const points = values => values.map((_, i) => at(values, i));
  const raw = points(series.y);
  if (series.points) {
    root.append(svg('path', { class: 'line', d: pathOf(raw), style: `stroke:${series.color}` }));
    if (raw.length > 60) return;  // so many that they would hide the line
    for (const point of raw) {
      if (point) root.append(svg('circle', { class: 'point', cx: point[0], cy: point[1], r: 3.5, style: `fill:${series.color}` }));
    }
    return;
  }
  if (series.min) {
    const low = points(series.min).filter(Boolean), high = points(series.max).filter(Boolean);
    root.append(svg('path', { class: 'band', d: `${pathOf(high)}${pathOf(low.reverse()).replace('M', 'L')}Z`, style: `fill:${series.color}` }));
  }
  if (series.smooth === false && !series.min) {
    root.append(svg('path', { class: 'line', d: pathOf(raw), style: `stroke:${series.color}` }));
    return;
  }
  if (!series.min) root.append(svg('path', { class: 'raw', d: pathOf(raw), style: `stroke:${series.color}` }));
  root.append(svg('path', { class: 'line', d: pathOf(points(smooth(series.y))), style: `stroke:${series.color}` }));
}

// The series' values nearest to a place on the axis, in a tooltip and as dots.
function attachReading(root, spec, frame) {
  const marks = svg('g', { class: 'marks' });
  root.append(marks);
  const longest = spec.series.reduce((a, b) => (b.x.length > a.x.length ? b : a));
  let index = longest.x.length - 1;
  const nearest = (list, value) => {
    let low = 0, high = list.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (list[middle] < value) low = middle + 1; else high = middle;
    }
    return low > 0 && value - list[low - 1] < list[low] - value ? low - 1 : low;
  };
  const show = (value, clientX, clientY) => {
    marks.replaceChildren(svg('line', { class: 'cursor', x1: frame.x(value), x2: frame.x(value), y1: frame.top, y2: frame.bottom }));
    const rows = [];
    for (const series of spec.series) {
      const i = nearest(series.x, value);
      if (i < 0 || series.y[i] === null || series.y[i] === undefined) continue;
      marks.append(svg('circle', { class: 'dot', cx: frame.x(series.x[i]), cy: frame.y(series.y[i]), r: 3.5, style: `fill:${series.color}` }));
      rows.push([series.color, series.name, spec.format(series.y[i])]);
    }
    const title = axis.mode === 'step' ? `step ${number(value, 7)}`
      : axis.mode === 'tokens' ? `${compact(value)} tokens` : duration(value);
    showTooltip(clientX, clientY, title, rows);
  };
  const hide = () => { marks.replaceChildren(); hideTooltip(); };
  root.addEventListener('pointermove', event => {
    const box = root.getBoundingClientRect();
    const share = (event.clientX - box.left - frame.left) / (frame.width - frame.left - frame.right);
    index = nearest(longest.x, frame.low + Math.max(0, Math.min(1, share)) * (frame.high - frame.low));
    show(longest.x[index], event.clientX, event.clientY);
  });
  root.addEventListener('pointerleave', hide);
  root.addEventListener('blur', hide);
  root.addEventListener('keydown', event => {
    const move = { ArrowLeft: -1, ArrowRight: 1, PageUp: 20, PageDown: -20, Home: -Infinity, End: Infinity }[event.key];
    if (move === undefined) return;
    event.preventDefault();
    index = Math.max(0, Math.min(longest.x.length - 1, index + move));
    const box = root.getBoundingClientRect();
    show(longest.x[index], box.left + frame.x(longest.x[index]), box.top + frame.top);
  });
}

function spoken(spec) {
  const parts = spec.series.map(series => {
    const values = series.y.filter(value => value !== null && value !== undefined);
    if (values.length === 0) return `${series.name}: no values`;
    const [low, high] = extent([values]);
    return `${series.name}: from ${spec.format(values[0])} to ${spec.format(values[values.length - 1])}, least ${spec.format(low)}, most ${spec.format(high)}`;
  });
  const references = (spec.references || []).map(reference => `${reference.name} ${spec.format(reference.value)}`);
  return `${spec.title}. ${[...parts, ...references].join('. ')}. Arrow keys read the values.`;
}

// spec() gives {title, series: [{name, color, x, y, min, max, points, smooth}], format, log, zero, top, references, domain};
// domain: positions that the horizontal axis must reach.
function lineChart(title, note, spec, options = {}) {
  const place = html('div', { class: 'plot' });
  const draw = width => {
    const now = { title, ...spec() };
    const height = options.height ? options.height(width) : Math.round(Math.max(170, Math.min(240, width * 0.42)));
    const [low, high] = rangeY(now);
    const top = 10, bottom = height - 26, right = 10;
    const log = now.log && low > 0;
    const yTicks = log ? logTicks(low, high, Math.floor(height / 38)) : linearTicks(low, high, Math.floor(height / 36));
    const format = now.tickFormat || (value => (Math.abs(value) >= 1e4 ? compact(value) : number(value, 4)));
    const left = Math.max(...yTicks.map(tick => format(tick).length)) * 6.6 + 12;
    const [first, last] = extent([...now.series.map(series => series.x), now.domain || []]);
    const start = axis.mode === 'step' ? first : Math.min(0, first);
    const end = last > start ? last : start + 1;
    const x = value => left + (value - start) / (end - start) * (width - left - right);
    const frame = { width, height, left, right, top, bottom, yTicks, format, x, log, y: scaleY(now, low, high, top, bottom),
      xTicks: axisTicks(start, end, Math.floor((width - left) / 80)), low: start, high: end, span: end - start };
    const root = svg('svg', { width, height, viewBox: `0 0 ${width} ${height}`, role: 'img', tabindex: 0, 'aria-label': spoken(now) });
    drawAxes(root, frame);
    drawReferences(root, now, frame);
    for (const series of now.series) drawSeries(root, series, frame);
    attachReading(root, now, frame);
    place.replaceChildren(root);
  };
  drawing(place, draw);
  return card(title, note, options.legend, place);
}

function legend(entries) {
  return html('ul', { class: 'legend' }, entries.map(([color, name]) => html('li', {}, swatch(color), html('span', { text: name }))));
}
