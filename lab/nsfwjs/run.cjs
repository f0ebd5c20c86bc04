// node run.cjs DUMP BLOB OUT: what TensorFlow.js computes of pictures, float32 (B, 224, 224, 3).
const fs = require("node:fs");
const path = require("node:path");
const tf = require("@tensorflow/tfjs");

const [, , dump, blob, out] = process.argv;
const floats = (file) => {
  const read = fs.readFileSync(file);
  return new Float32Array(read.buffer.slice(read.byteOffset, read.byteOffset + read.length));
};
const model = JSON.parse(fs.readFileSync(path.join(dump, "model.json")));
const weights = fs.readFileSync(path.join(dump, "weights.bin"));
const values = floats(blob);
tf.setBackend("cpu").then(async () => {
  const loaded = await tf.loadLayersModel(
    tf.io.fromMemory({
      modelTopology: model.modelTopology,
      weightSpecs: model.weightsManifest.flatMap((group) => group.weights),
      weightData: weights.buffer.slice(weights.byteOffset, weights.byteOffset + weights.length),
    }),
  );
  const given = tf.tensor(values, [values.length / (224 * 224 * 3), 224, 224, 3]);
  fs.writeFileSync(out, Buffer.from(loaded.predict(given).dataSync().buffer));
});
