#!/bin/sh
# The page, a model and onnxruntime-web in one folder that any web server can serve:
#
#     examples/browser/build.sh out/browser && python -m http.server --bind 127.0.0.1 --directory out/browser 8000
#
# MODEL names another model than nano; RUAC another command than ruac.
set -eu

version=1.30.0 # of onnxruntime-web
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?"usage: $0 FOLDER"}
mkdir -p "$out/ort"
out=$(cd "$out" && pwd)

# the page shows 8 bits of colour: weights in half precision change nothing that can be seen, and load twice as fast
"${RUAC:-ruac}" export --model "${MODEL:-nano}" --precision fp16 --out "$out/model"

package=$(mktemp -d)
trap 'rm -rf "$package"' EXIT
(cd "$package" && npm pack --silent "onnxruntime-web@$version" && tar -xzf onnxruntime-web-*.tgz)
for file in ort.wasm.min.js ort-wasm-simd-threaded.mjs ort-wasm-simd-threaded.wasm; do
  cp "$package/package/dist/$file" "$out/ort/$file"
done
cp "$here/index.html" "$here/page.js" "$here/segment.js" "$out"
