// Digests that people are told to copy stand on the node that knows them: a button for each, which
// copies all 64 digits. They come with what the node shows after a run.
import { app } from "/scripts/app.js";
import { say } from "./language.js";
import { toast } from "./toast.js";

const FITS = 44; // letters on a button

const NAMES = {
  seal: () => say("Copy seal {digest}"),
  file: () => say("Copy file's SHA-256 {digest}"),
  base: () => say("Copy base's SHA-256 {digest}"),
};

async function copy(digest) {
  try {
    await navigator.clipboard.writeText(digest);
    toast("success", say("Copied"), digest, 3000);
  } catch {
    // a page that is not served by https, or not from this machine, has no clipboard
    toast("info", say("Copy it from here"), digest, 60_000);
  }
}

// What is saved of a node has no room for it: its widgets' values are known by their places.
function button(node, key, label, callback) {
  let found = node.widgets?.find((each) => each.name === key);
  if (!found) {
    found = node.addWidget("button", key, null, () => {}, { serialize: false });
    found.serialize = false;
  }
  Object.assign(found, { label, callback });
}

function show(node, { digests, report }) {
  for (const [name, digest] of digests) {
    const label = NAMES[name]().replace("{digest}", `${digest.slice(0, 12)}…`);
    button(node, `copy ${name}`, label, () => copy(digest));
  }
  for (const line of report ?? []) {
    const label = line.length > FITS ? `${line.slice(0, FITS)}…` : line;
    button(node, "report", label, () => toast("info", node.title, line, 60_000));
  }
  node.setSize([node.size[0], Math.max(node.size[1], node.computeSize()[1])]);
  node.setDirtyCanvas(true, true);
}

app.registerExtension({
  name: "ModularSafetyLora.Digests",
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("MSL_")) return;
    const executed = node.onExecuted;
    node.onExecuted = function (output) {
      executed?.call(this, output);
      if (output?.digests) show(this, output);
    };
  },
});
