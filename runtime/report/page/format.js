// Numbers for people, and the ticks of axes.

const thin = '\u202f';

// About `digits` significant digits, without exponents where that is readable.
function number(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return '–';
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e9)) return value.toExponential(Math.max(0, digits - 1)).replace('e+', 'e');
  if (size >= 1000) return Math.round(value).toLocaleString('en-US').replaceAll(',', thin);
  return String(Number(value.toPrecision(digits)));
}

function fixed(value, decimals) {
  return value === null || value === undefined || !Number.isFinite(value) ? '–' : value.toFixed(decimals);
}

// 950, 12.3k, 4.1M.
function compact(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return '–';
  for (const [unit, name] of [[1e12, 'T'], [1e9, 'G'], [1e6, 'M'], [1e3, 'k']]) {
    if (Math.abs(value) >= unit * 0.9995) return `${Number((value / unit).toPrecision(3))}${name}`;
  }
  return String(Number(value.toPrecision(3)));
}

function duration(seconds) {
  if (!Number.isFinite(seconds)) return '–';
  if (seconds < 10) return `${Number(seconds.toPrecision(2))} s`;
  const total = Math.round(seconds);
  const two = value => String(value).padStart(2, '0');
  if (total >= 86400) return `${Math.floor(total / 86400)} d ${two(Math.floor(total % 86400 / 3600))} h`;
  if (total >= 3600) return `${Math.floor(total / 3600)} h ${two(Math.floor(total % 3600 / 60))} min`;
  return total >= 60 ? `${Math.floor(total / 60)} min ${two(total % 60)} s` : `${total} s`;
}

function shortTime(seconds) {
  if (seconds < 1) return `${number(seconds * 1000)} ms`;
  return `${number(seconds)} s`;
}

function percent(share, decimals = 0) {
  return Number.isFinite(share) ? `${(100 * share).toFixed(decimals)}%` : '–';
}

function times(ratio) {
  const inverse = 1 / ratio;
  if (inverse >= 4 && Math.abs(inverse - Math.round(inverse)) < 1e-9) return `1/${Math.round(inverse)}×`;
  return ratio === 0 ? '0' : `${ratio >= 10 ? Math.round(ratio) : Number(ratio.toPrecision(2))}×`;
}

function niceStep(span, count) {
  const rough = span / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 2.5, 5, 10].map(factor => factor * power).find(step => step >= rough * 0.999);
}

function linearTicks(min, max, count) {
  if (!(max > min)) return [min];
  let step = niceStep(max - min, count);
  // At least two ticks must be in the frame, or nobody can read a value between them.
  if (Math.floor(max / step + 1e-9) - Math.ceil(min / step - 1e-9) < 1) step = niceStep(max - min, 2 * count);
  const ticks = [];
  for (let i = Math.ceil(min / step - 1e-9); i * step <= max + step * 1e-9; ++i) ticks.push(i * step);
  return ticks;
}

// Minutes and hours have ticks of their own.
function timeTicks(min, max, count) {
  const rough = (max - min) / Math.max(1, count);
  const step = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200].find(s => s >= rough);
  if (!step) return linearTicks(min, max, count);
  const ticks = [];
  for (let i = Math.ceil(min / step); i * step <= max; ++i) ticks.push(i * step);
  return ticks;
}

function clock(seconds, span) {
  if (span >= 2 * 86400) return `${number(seconds / 86400)} d`;
  if (span >= 2 * 3600) return `${number(seconds / 3600)} h`;
  return span >= 120 ? `${number(seconds / 60)} min` : `${number(seconds)} s`;
}

function logTicks(min, max, count) {
  const ratio = max / min;
  if (ratio < 2.5) return linearTicks(min, max, count);
  const sets = [[1, 1.5, 2, 3, 4, 5, 7], [1, 2, 5], [1, 3], [1]];
  let best = [];
  for (const set of sets) {
    best = [];
    for (let power = Math.floor(Math.log10(min)); power <= Math.ceil(Math.log10(max)); ++power) {
      for (const factor of set) {
        const tick = factor * 10 ** power;
        if (tick >= min * 0.999 && tick <= max * 1.001) best.push(tick);
      }
    }
    if (best.length <= count + 1) return best;
  }
  const stride = Math.ceil(best.length / count);
  return best.filter((_, i) => i % stride === 0);
}
