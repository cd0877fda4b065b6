// A matrix of ratios to what is expected: blue below, orange above, neutral at 1, on a scale of powers of two; what is
// exactly nothing stands out. Blue and orange differ for every kind of colour vision.

function mix(a, b, share) {
  return a.map((value, i) => Math.round(value + (b[i] - value) * share));
}

function rgb(text) {
  const hex = text.replace('#', '');
  return [0, 2, 4].map(i => parseInt(hex.slice(i, i + 2), 16));
}

// reach: how many doublings the colours span to either side.
function divergingScale(reach) {
  const stops = ['--low-2', '--low-1', '--even', '--high-1', '--high-2'].map(name => rgb(cssColor(name)));
  return ratio => {
    if (ratio === 0) return rgb(cssColor('--nothing'));
    const at = (Math.max(-1, Math.min(1, Math.log2(ratio) / reach)) + 1) * 2;
    const below = Math.min(3, Math.floor(at));
    return mix(stops[below], stops[below + 1], at - below);
  };
}

// The fewest doublings that hold nearly all values.
function reachOf(ratios) {
  const sizes = ratios.filter(ratio => ratio > 0).map(ratio => Math.abs(Math.log2(ratio))).sort((a, b) => a - b);
  const most = sizes.length ? sizes[Math.floor((sizes.length - 1) * 0.98)] : 1;
  return [1, 2].find(reach => most <= reach) || 3;
}

function scaleLegend(reach, what, nothing) {
  const bar = html('canvas', { class: 'scale', width: 160, height: 10, 'aria-hidden': 'true' });
  const paint = () => {
    const color = divergingScale(reach), context = bar.getContext('2d');
    for (let i = 0; i < bar.width; ++i) {
      context.fillStyle = `rgb(${color(2 ** ((i / (bar.width - 1) * 2 - 1) * reach)).join()})`;
      context.fillRect(i, 0, 1, bar.height);
    }
  };
  drawing(bar, paint);
  return html('div', { class: 'scale-legend' }, html('span', { class: 'scale-name', text: what }),
    html('span', { class: 'scale-bar' }, html('span', { text: times(2 ** -reach) }), bar, html('span', { text: times(2 ** reach) })),
    nothing && html('span', { class: 'scale-nothing' }, swatch('var(--nothing)'), html('span', { text: nothing })));
}

// spec: {rows, columns, ratio(row, column), read(row, column) -> [title, rows], label, rowTicks: [[row, text]],
//        columnTicks(width) -> [[column, text]], cell(width) -> {width, height}, rowName, columnName, reach}
function heatMap(spec) {
  const place = html('div', { class: 'plot heat' });
  const draw = width => {
    const now = typeof spec === 'function' ? spec() : spec;
    const left = Math.max(...now.rowTicks.map(([, text]) => text.length)) * 6.6 + 10, top = 5, bottom = 20;
    const cell = now.cell(width - left - 1);
    const inner = { width: cell.width * now.columns, height: cell.height * now.rows };
    const ratio = Math.min(3, devicePixelRatio || 1);
    const height = top + inner.height + bottom;
    const canvas = html('canvas', { role: 'img', tabindex: 0, 'aria-label': now.label, width: Math.round(width * ratio), height: Math.round(height * ratio) });
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    const context = canvas.getContext('2d');
    context.scale(ratio, ratio);
    const color = divergingScale(now.reach);
    const snap = value => Math.round(value * ratio) / ratio;
    for (let row = 0; row < now.rows; ++row) {
      for (let column = 0; column < now.columns; ++column) {
        context.fillStyle = `rgb(${color(now.ratio(row, column)).join()})`;
        const x = snap(left + column * cell.width), y = snap(top + row * cell.height);
        const gap = cell.gap || 0;
        context.fillRect(x, y, snap(left + (column + 1) * cell.width) - x - (cell.width > 6 ? gap : 0), snap(top + (row + 1) * cell.height) - y - (cell.height > 6 ? 1 : 0));
      }
    }
    context.fillStyle = cssColor('--muted');
    context.font = `11px ${getComputedStyle(document.body).fontFamily}`;
    context.textAlign = 'right';
    context.textBaseline = 'middle';
    for (const [row, text] of now.rowTicks) context.fillText(text, left - 6, top + (row + 0.5) * cell.height);
    context.textBaseline = 'alphabetic';
    let free = -Infinity;
    for (const [column, text] of now.columnTicks(inner.width)) {
      const half = context.measureText(text).width / 2;
      const at = Math.min(Math.max(left + (column + 0.5) * cell.width, left + half), width - half);
      if (at - half < free + 10) continue;
      context.textAlign = 'center';
      context.fillText(text, at, top + inner.height + 15);
      free = at + half;
    }
    attachCells(canvas, now, { left, top, cell });
    place.replaceChildren(canvas);
  };
  drawing(place, draw);
  return place;
}

function attachCells(canvas, now, { left, top, cell }) {
  let at = [0, now.columns - 1];
  const show = (x, y) => { const [title, rows] = now.read(...at); showTooltip(x, y, title, rows); };
  canvas.addEventListener('pointermove', event => {
    const box = canvas.getBoundingClientRect();
    const row = Math.floor((event.clientY - box.top - top) / cell.height), column = Math.floor((event.clientX - box.left - left) / cell.width);
    if (row < 0 || row >= now.rows || column < 0 || column >= now.columns) { hideTooltip(); return; }
    at = [row, column];
    show(event.clientX, event.clientY);
  });
  canvas.addEventListener('pointerleave', hideTooltip);
  canvas.addEventListener('blur', hideTooltip);
  canvas.addEventListener('keydown', event => {
    const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!move) return;
    event.preventDefault();
    at = [Math.max(0, Math.min(now.rows - 1, at[0] + move[0])), Math.max(0, Math.min(now.columns - 1, at[1] + move[1]))];
    const box = canvas.getBoundingClientRect();
    show(box.left + left + (at[1] + 0.5) * cell.width, box.top + top + (at[0] + 0.5) * cell.height);
  });
}

// About four labels of `count` rows, the last among them.
function idTicks(count) {
  if (count <= 8) return Array.from({ length: count }, (_, i) => [i, String(i)]);
  const step = count / 4;
  return [0, 1, 2, 3].map(i => Math.round(i * step)).concat(count - 1).map(i => [i, String(i)]);
}
