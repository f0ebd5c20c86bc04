// The frontend translates names and tooltips of a node, but not the choices of its lists: here they
// are shown in the language of the frontend. What is chosen, saved and sent stays the English word.
import { app } from "/scripts/app.js";
import { CHOICES } from "./words.js";

app.registerExtension({
  name: "ModularSafetyLora.Choices",
  nodeCreated(node) {
    const words = CHOICES[app.ui.settings.getSettingValue("Comfy.Locale")];
    if (!words || !node.comfyClass?.startsWith("MSL_")) return;
    for (const widget of node.widgets ?? [])
      if (widget.type === "combo") widget.options.getOptionLabel = (value) => words[value] ?? value ?? "";
  },
});
