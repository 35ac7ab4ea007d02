// Makes niivue.js from the npm package. Only a maintainer runs it, to take up another version:
//   npm install --ignore-scripts @niivue/niivue@0.69.0 esbuild@0.28.2 && node build.mjs
// Left out: the reader of zarr, with its decoders in WebAssembly (half of the size; the page has no such files, and
// its Content-Security-Policy allows no WebAssembly). Everything else is NiiVue, minified.
import { build } from "esbuild";

const refusing = `
const refuse = () => { throw new Error("this build of NiiVue has no zarr"); };
export const slice = refuse, root = refuse, open = refuse, get = refuse;
export class FetchStore { constructor() { refuse(); } }
`;
await build({
  stdin: { contents: `export { Niivue, NVImage, SLICE_TYPE, SHOW_RENDER, MULTIPLANAR_TYPE, DRAG_MODE } from "@niivue/niivue";`, resolveDir: "." },
  bundle: true,
  format: "esm",
  minify: true,
  target: "es2022",
  legalComments: "none",
  outfile: "niivue.js",
  plugins: [{
    name: "no-zarr",
    setup(b) {
      b.onResolve({ filter: /^(zarrita|numcodecs)(\/|$)/ }, (a) => ({ path: a.path, namespace: "no-zarr" }));
      b.onLoad({ filter: /.*/, namespace: "no-zarr" }, () => ({ contents: refusing }));
    },
  }],
});
