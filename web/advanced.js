// Nodes 2.0 hide the advanced inputs of a node behind a button of their own. The classic nodes show
// every input: here they get such a button too, for the nodes of this pack.
import { app } from "/scripts/app.js";
import { say } from "./language.js";

const SHOWN = "show all inputs"; // in a node's properties, so that a workflow keeps it
const RENDERING = "Comfy.VueNodes.Enabled.change"; // an event of the settings

const isAdvanced = (widget) => widget.options?.advanced;

const heights = new WeakMap(); // of the nodes, as they were saved

function arrange(node, button, least = 0) {
  const classic = !LiteGraph.vueNodesMode;
  const shown = node.properties[SHOWN] ?? false;
  const linked = new Set(
    node.inputs.filter((_, slot) => node.isInputConnected(slot)).map((each) => each.widget?.name),
  );
  for (const widget of node.widgets.filter(isAdvanced))
    widget.hidden = classic && !shown && !linked.has(widget.name);
  const place = node.widgets.indexOf(button);
  if (classic && place < 0) node.widgets.push(button);
  if (!classic && place >= 0) node.widgets.splice(place, 1);
  const count = node.widgets.filter(isAdvanced).length;
  const more = say("Show # more inputs").replace("#", count);
  button.label = shown ? say("Show fewer inputs") : more;
  if (classic) node.setSize([node.size[0], Math.max(least, node.computeSize()[1])]);
  node.setDirtyCanvas(true, true);
}

app.registerExtension({
  name: "ModularSafetyLora.AdvancedInputs",
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("MSL_") || !node.widgets?.some(isAdvanced)) return;
    const toggle = () => {
      node.properties[SHOWN] = !node.properties[SHOWN];
      arrange(node, button);
    };
    const button = node.addWidget("button", SHOWN, null, toggle, { serialize: false });
    button.serialize = false;
    const configured = node.onConfigure;
    node.onConfigure = function (...told) {
      configured?.apply(this, told);
      heights.set(node, node.size[1]);
      arrange(node, button, node.size[1]);
    };
    const switched = () => setTimeout(() => arrange(node, button));
    app.ui.settings.addEventListener(RENDERING, switched);
    const removed = node.onRemoved;
    node.onRemoved = function (...told) {
      app.ui.settings.removeEventListener(RENDERING, switched);
      removed?.apply(this, told);
    };
    arrange(node, button);
    if (LiteGraph.vueNodesMode) node.setSize([node.size[0], 0]);
  },
  // the frontend has made room for all inputs, and Nodes 2.0 would fill it with the text areas
  loadedGraphNode(node) {
    if (LiteGraph.vueNodesMode && heights.has(node))
      node.setSize([node.size[0], heights.get(node)]);
  },
});
