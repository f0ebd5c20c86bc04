// The pack's own sockets and links have colours, in classic nodes and in Nodes 2.0.
import { app } from "/scripts/app.js";

const COLOURS = { MSL_SAFETY_LORA: "#e8593c", MSL_TASK_LORA: "#4fb3a9" };

app.registerExtension({
  name: "ModularSafetyLora.Colours",
  setup() {
    for (const [type, colour] of Object.entries(COLOURS))
      for (const known of [LGraphCanvas.link_type_colors, app.canvas.default_connection_color_byType])
        // a palette sets what it does not know to nothing
        Object.defineProperty(known, type, { get: () => colour, set() {}, enumerable: true });
    const rules = Object.entries(COLOURS).map((pair) => `--color-datatype-${pair.join(": ")};`);
    const style = document.createElement("style");
    style.textContent = `:root { ${rules.join(" ")} }`;
    document.head.append(style);
  },
});
