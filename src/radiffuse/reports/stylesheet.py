"""Style sheet of the HTML page: one set of colors for light pages, one for dark ones."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #1b2129; --soft: #5b6672; --line: #dfe4ea; --panel: #f5f7f9;
  --accent: #0b63a5;
  --c0: #0072b2; --c1: #c44e00; --c2: #00805f; --c3: #a8488a; --c4: #8a6a00; --c5: #5f6b78;
  --grid: #e3e8ed;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #12161b; --ink: #e6eaef; --soft: #9aa6b2; --line: #2b333c; --panel: #1a2027;
    --accent: #6db6ee;
    --c0: #4fb0f0; --c1: #ff9252; --c2: #3fcfa3; --c3: #e892cb; --c4: #e3bf4a; --c5: #a3afbb;
    --grid: #262e37;
  }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
header, nav, main, footer { max-width: 63rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2.75rem; }
h1 {
  font-size: 1.9rem; line-height: 1.2; margin: 0; letter-spacing: -0.015em;
  overflow-wrap: anywhere;
}
header p { color: var(--soft); margin: .4rem 0 0; overflow-wrap: anywhere; }
nav { margin-top: 1.1rem; display: flex; flex-wrap: wrap; gap: .35rem 1.2rem; font-size: .92rem; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 3px; border-radius: 2px; }
h2 {
  font-size: 1.25rem; line-height: 1.3; margin: 2.6rem 0 .9rem; padding-top: 1.1rem;
  border-top: 1px solid var(--line); letter-spacing: -0.01em;
}
p { margin: 0 0 .9rem; max-width: 44rem; overflow-wrap: anywhere; }
figure { margin: 1.2rem 0 1.8rem; }
figcaption { color: var(--soft); font-size: .9rem; line-height: 1.45; max-width: 44rem; }
figure.drawing figcaption, figure.images figcaption { margin-top: .55rem; }
figure.table figcaption { margin-bottom: .5rem; }
figure svg { display: block; width: 100%; height: auto; fill: var(--ink); }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; min-width: 24rem; }
th, td { padding: .38rem 1.15rem .38rem 0; text-align: left; vertical-align: top; }
td { font-variant-numeric: tabular-nums; }
th {
  color: var(--soft); font-weight: 600; border-bottom: 1px solid var(--soft);
  white-space: nowrap;
}
td { border-bottom: 1px solid var(--line); }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
dl.facts {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr)); gap: .7rem;
  margin: 1.2rem 0 1.6rem;
}
dl.facts div {
  background: var(--panel); border: 1px solid var(--line); border-radius: 8px;
  padding: .6rem .7rem;
}
dl.facts dt { color: var(--soft); font-size: .82rem; }
dl.facts dd {
  margin: .1rem 0 0; font-size: 1.05rem; font-weight: 600; font-variant-numeric: tabular-nums;
  overflow-wrap: anywhere;
}
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(7rem, 1fr)); gap: .5rem; }
.grid div { font-size: .8rem; color: var(--soft); overflow-wrap: anywhere; }
.grid img { display: block; width: 100%; height: auto; border-radius: 3px; background: #000; }
details {
  border: 1px solid var(--line); border-radius: 8px; margin: 0 0 .8rem;
  background: var(--panel);
}
summary { cursor: pointer; padding: .55rem .85rem; font-weight: 600; font-size: .95rem; }
details pre {
  margin: 0; padding: .2rem .85rem .85rem;
  font: .83rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; overflow-x: auto;
}
footer {
  color: var(--soft); font-size: .85rem; margin-top: 3rem; padding-top: 1rem;
  padding-bottom: 2.5rem;
}
@media (max-width: 40rem) {
  header { padding-top: 1.5rem; }
  h1 { font-size: 1.5rem; }
  figure.drawing { overflow-x: auto; }
  figure.drawing svg { min-width: 34rem; }
}
@media print {
  body { font-size: 11pt; }
  nav { display: none; }
  figure, tr { break-inside: avoid; }
}
"""
