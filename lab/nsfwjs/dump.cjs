// node dump.cjs PACKAGE OUT: nsfwjs's MobileNetV2 as it ships, its layers as JSON and its weights.
const fs = require("node:fs");
const path = require("node:path");

const [, , folder, out] = process.argv;
const from = (name) => require(path.resolve(folder, "dist/models/mobilenet_v2", name));
const plain = (found) => found.default ?? found;
fs.writeFileSync(path.join(out, "model.json"), JSON.stringify(plain(from("model.min.js"))));
fs.writeFileSync(
  path.join(out, "weights.bin"),
  Buffer.from(plain(from("group1-shard1of1.min.js")), "base64"),
);
