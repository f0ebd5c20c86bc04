// ComfyUI fits a template into the window, where a large one can't be read. The templates of this
// pack open at the view that they were saved with. Once: what a user saves and opens is the user's.
import { app } from "/scripts/app.js";

const OPENS = "msl_opens_at_its_view"; // lab/layout.py

app.registerExtension({
  name: "ModularSafetyLora.View",
  afterConfigureGraph() {
    const { extra } = app.graph;
    if (!extra?.[OPENS]) return;
    delete extra[OPENS];
    if (app.ui.settings.getSettingValue("Comfy.EnableWorkflowViewRestore") === false) return;
    const { scale, offset } = extra.ds;
    requestAnimationFrame(() => {
      app.canvas.ds.scale = scale;
      app.canvas.ds.offset = [...offset];
      app.canvas.setDirty(true, true);
    });
  },
});
