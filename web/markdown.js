// What this pack's nodes say in words is Markdown. A Preview as Text shows it rendered when its own
// switch says so; the frontend saves no such switch, so it is set where a summary or table comes in.
import { app } from "/scripts/app.js";

const SWITCH = "preview_mode"; // of the frontend's own widget
const WORDS = new Set(["summary", "table"]);

function render(node) {
  const source = node.getInputNode?.(0);
  const said = source?.outputs?.[node.getInputLink(0)?.origin_slot]?.name;
  const mode = node.widgets?.find((widget) => widget.name === SWITCH);
  if (mode && source?.comfyClass?.startsWith("MSL_") && WORDS.has(said)) mode.value = true;
}

app.registerExtension({
  name: "ModularSafetyLora.Markdown",
  nodeCreated(node) {
    if (node.comfyClass !== "PreviewAny") return;
    const changed = node.onConnectionsChange;
    node.onConnectionsChange = function (...told) {
      changed?.apply(this, told);
      render(this);
    };
  },
  loadedGraphNode(node) {
    if (node.comfyClass === "PreviewAny") setTimeout(() => render(node)); // when all links are there
  },
});
