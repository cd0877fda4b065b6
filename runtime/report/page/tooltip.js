// One tooltip for all charts, near the pointer and inside the window.

const tooltip = document.getElementById('tooltip');

// rows: [colour or null, name, value].
function showTooltip(x, y, title, rows) {
  tooltip.replaceChildren(html('strong', { text: title }),
    html('table', {}, rows.map(([color, name, value]) =>
      html('tr', {}, html('td', {}, color && swatch(color)), html('td', { text: name }), html('td', { text: value })))));
  tooltip.hidden = false;
  const box = tooltip.getBoundingClientRect();
  const left = x + 14 + box.width > innerWidth - 8 ? x - 14 - box.width : x + 14;
  tooltip.style.left = `${Math.max(8, Math.min(left, innerWidth - box.width - 8))}px`;
  tooltip.style.top = `${Math.max(8, Math.min(y + 14, innerHeight - box.height - 8))}px`;
}

function hideTooltip() {
  tooltip.hidden = true;
}

addEventListener('scroll', hideTooltip, { passive: true });
addEventListener('keydown', event => { if (event.key === 'Escape') hideTooltip(); });
