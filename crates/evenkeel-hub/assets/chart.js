// The chart of messages per second: two lines over the last two minutes, drawn as SVG in pixels so that text stays round.

const SAMPLES = 120;
const LEFT = 44;
const BOTTOM = 20;
const TOP = 8;
const SVG = 'http://www.w3.org/2000/svg';

function element(name, attributes, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

/** The smallest of 1, 2, 5, 10, 20, 50... that is not below `value`. */
export function niceCeiling(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 2, 5, 10].find((step) => step * power >= value) * power;
}

/** A short form of a number: 950, 12.5k, 3.1M. */
export function short(value) {
  for (const [limit, unit] of [[1e9, 'G'], [1e6, 'M'], [1e4, 'k']]) {
    if (value >= limit) {
      const scaled = value / (unit === 'k' ? 1e3 : limit);
      return `${scaled >= 100 ? Math.round(scaled) : Number(scaled.toFixed(1))}${unit}`;
    }
  }
  return String(value >= 10 || Number.isInteger(value) ? Math.round(value) : Number(value.toFixed(1)));
}

/** A chart inside `host`. `describe(sample or null, seconds ago)` is told what the pointer is on. */
export function createChart(host, describe) {
  const samples = [];
  const svg = element('svg', { role: 'img', 'aria-label': 'Messages per second over the last two minutes' });
  host.append(svg);
  let pointed = null;

  const xOf = (index, width) => LEFT + ((SAMPLES - samples.length + index) / (SAMPLES - 1)) * (width - LEFT);

  function indexAt(x, width) {
    const index = Math.round(((x - LEFT) / (width - LEFT)) * (SAMPLES - 1)) - (SAMPLES - samples.length);
    return index >= 0 && index < samples.length ? index : null;
  }

  function drawGrid(width, height, ceiling) {
    const base = height - BOTTOM;
    for (const part of [0, 0.5, 1]) {
      const y = base - part * (base - TOP);
      svg.append(element('line', { class: 'grid', x1: LEFT, x2: width, y1: y, y2: y }));
      svg.append(element('text', { x: LEFT - 8, y: y + 4, 'text-anchor': 'end' }, short(ceiling * part)));
    }
    const times = [['2 min ago', LEFT, 'start'], ['1 min', (LEFT + width) / 2, 'middle'], ['now', width, 'end']];
    for (const [text, x, anchor] of times) {
      svg.append(element('text', { x, y: height - 3, 'text-anchor': anchor }, text));
    }
  }

  function drawLines(width, height, ceiling) {
    const base = height - BOTTOM;
    const points = (name) => samples.map((sample, index) => {
      const y = base - (sample[name] / ceiling) * (base - TOP);
      return `${xOf(index, width).toFixed(1)},${y.toFixed(1)}`;
    });
    if (samples.length > 1) {
      const out = points('out');
      const area = `M${xOf(0, width)},${base} L${out.join(' L')} L${width},${base} Z`;
      svg.append(element('path', { class: 'area', d: area }));
      svg.append(element('polyline', { class: 'line out', points: out.join(' ') }));
      svg.append(element('polyline', { class: 'line in', points: points('in').join(' ') }));
    }
    if (pointed !== null) {
      const x = xOf(pointed, width);
      svg.append(element('line', { class: 'cursor', x1: x, x2: x, y1: TOP, y2: base }));
    }
  }

  function draw() {
    const { width, height } = svg.getBoundingClientRect();
    if (width <= LEFT || height <= BOTTOM + TOP) return;
    svg.replaceChildren();
    const ceiling = niceCeiling(Math.max(...samples.map((sample) => Math.max(sample.in, sample.out)), 10));
    drawGrid(width, height, ceiling);
    drawLines(width, height, ceiling);
    const shown = pointed ?? samples.length - 1;
    describe(samples[shown] ?? null, pointed === null ? null : samples.length - 1 - pointed);
  }

  svg.addEventListener('pointermove', (event) => {
    const box = svg.getBoundingClientRect();
    pointed = indexAt(event.clientX - box.left, box.width);
    draw();
  });
  svg.addEventListener('pointerleave', () => { pointed = null; draw(); });
  new ResizeObserver(draw).observe(host);

  return {
    /** Adds one second's rates, `{in, out}`. */
    push(sample) {
      samples.push(sample);
      if (samples.length > SAMPLES) samples.shift();
      else if (pointed !== null) pointed = Math.min(pointed, samples.length - 1);
      draw();
    },
  };
}
