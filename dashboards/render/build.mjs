// node build.mjs FOLDER: writes main.js and index.html there.
import { copyFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const out = process.argv[2];
const here = (path) => fileURLToPath(new URL(path, import.meta.url));
await build({
  entryPoints: [here('main.jsx')],
  bundle: true,
  minify: true,
  format: 'esm',
  target: 'es2022',
  jsx: 'automatic',
  outfile: `${out}/main.js`,
  // Packages bring copies of their own of what holds the page's state; there must be one.
  alias: { '@tanstack/react-query': here('node_modules/@tanstack/react-query') },
  define: { global: 'globalThis', 'process.env.NODE_ENV': '"production"' },
  loader: { '.woff': 'dataurl', '.woff2': 'dataurl', '.svg': 'dataurl', '.png': 'dataurl' },
  logLevel: 'warning',
});
await copyFile(here('index.html'), `${out}/index.html`);
