// Colors of classes on gray images: far apart, the first ones for color-blind readers too (Okabe and Ito's hues, brightened).
const BASE = [
  [255, 176, 0], [53, 208, 255], [255, 98, 88], [60, 214, 150], [226, 130, 255], [250, 240, 90], [110, 150, 255],
  [255, 140, 190], [160, 230, 80], [200, 160, 110], [0, 190, 190], [255, 210, 160], [170, 140, 230], [140, 200, 140],
  [230, 90, 140], [190, 190, 60],
];
export const IGNORED = 255;

/** [r, g, b] of a class. */
export function classColor(value) {
  if (value === IGNORED) return [140, 140, 140];
  const [r, g, b] = BASE[(value - 1) % BASE.length];
  const shade = 1 - 0.28 * (Math.floor((value - 1) / BASE.length) % 3);
  return [Math.round(r * shade), Math.round(g * shade), Math.round(b * shade)];
}

/** Of a difference: agrees, predicted alone, missed, another class. */
export const DIFFERENCE = { 1: [60, 214, 150], 2: [255, 176, 0], 3: [255, 70, 90], 4: [200, 120, 255] };

/** 256 RGBA rows for a map: black over violet and orange to pale yellow, clear at the bottom. */
export const HEAT = (() => {
  const stops = [[0, 0, 4], [60, 10, 110], [145, 40, 110], [220, 80, 60], [250, 160, 30], [250, 250, 165]];
  const lut = new Uint8ClampedArray(1024);
  for (let i = 0; i < 256; i++) {
    const at = (i / 255) * (stops.length - 1), k = Math.min(stops.length - 2, Math.floor(at));
    for (let c = 0; c < 3; c++) lut[4 * i + c] = stops[k][c] + (at - k) * (stops[k + 1][c] - stops[k][c]);
    lut[4 * i + 3] = Math.min(255, 3 * i);
  }
  return lut;
})();

/** 256 RGBA rows of a label layer; `hidden` holds the values that are not shown. */
export function labelLut(kind, hidden) {
  const lut = new Uint8ClampedArray(1024);
  for (let value = 1; value < 256; value++) {
    const color = kind === "difference" ? DIFFERENCE[value] || [0, 0, 0] : classColor(value);
    lut.set([...color, hidden.has(value) ? 0 : 255], 4 * value);
  }
  return lut;
}

export const css = ([r, g, b]) => `rgb(${r} ${g} ${b})`;
