// Building elements. Text always goes in as text: names in the data may look like HTML.

const svgNamespace = document.getElementById('svg-root').namespaceURI;

function setAttributes(node, attributes) {
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (key === 'text') node.textContent = value;
    else if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? '' : value);
  }
}

function append(node, children) {
  for (const child of children.flat()) {
    if (child !== null && child !== undefined && child !== false) node.append(child);
  }
  return node;
}

function html(tag, attributes, ...children) {
  const node = document.createElement(tag);
  setAttributes(node, attributes);
  return append(node, children);
}

function svg(tag, attributes, ...children) {
  const node = document.createElementNS(svgNamespace, tag);
  setAttributes(node, attributes);
  return append(node, children);
}

// A colour of style.css as it is now: the canvas needs values, not names.
function cssColor(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// What must be drawn again when its width, the colour scheme or a choice of the reader changes.
let drawings = [];
function fit(entry) {
  const width = Math.floor(entry.element.clientWidth);
  if (width > 0 && width !== entry.width) {
    entry.width = width;
    entry.draw(width);
  }
}
function drawing(element, draw) {
  const entry = { element, draw, width: 0 };
  drawings.push(entry);
  // In a frame of its own: what is drawn may change the element's size, which the observer must not see in the same pass.
  new ResizeObserver(() => requestAnimationFrame(() => fit(entry))).observe(element);
}
// After elements have come into the page or left it.
function drawNew() {
  drawings = drawings.filter(entry => entry.element.isConnected);
  drawings.forEach(fit);
}
function redrawAll() {
  for (const entry of drawings) {
    entry.width = 0;
    fit(entry);
  }
}

// A row of buttons of which one is pressed.
function choice(label, options, chosen, choose) {
  const buttons = options.map(([value, text]) =>
    html('button', { type: 'button', 'aria-pressed': String(value === chosen), text, onclick: () => {
      buttons.forEach((button, i) => button.setAttribute('aria-pressed', String(options[i][0] === value)));
      choose(value);
    } }));
  return html('div', { class: 'choice', role: 'group', 'aria-label': label }, buttons);
}

function swatch(color) {
  return html('span', { class: 'swatch', style: `background:${color}`, 'aria-hidden': 'true' });
}

// A chart's frame: title, what it shows, then what the chart puts in.
function card(title, note, ...children) {
  return html('figure', { class: 'card' },
    html('figcaption', {}, html('h3', { text: title }), note && html('p', { class: 'note', text: note })), children);
}

function section(id, title, note, ...children) {
  return html('section', { id, 'aria-labelledby': `${id}-title` },
    html('div', { class: 'section-head' },
      html('div', {}, html('h2', { id: `${id}-title`, text: title }), note && html('p', { class: 'note', text: note }))),
    children);
}
