// A picture that the operator's audit withheld is no error of a node: the run goes on. The server
// says so in an event, `{node, count, of, preset, ...}` (gates/keeper.py), and here it is said to whoever asked for the picture.
import { api } from "/scripts/api.js";
import { app } from "/scripts/app.js";
import { say } from "./language.js";
import { toast } from "./toast.js";

const EVENT = "modular-safety-lora.withheld";

function words({ count, preset }) {
  const one = say("A picture was withheld: the operator's audit ({preset}) flagged it.");
  const many = say("{count} pictures were withheld: the operator's audit ({preset}) flagged them.");
  const next = say("The run goes on. Change the prompt or the seed.");
  const said = (count > 1 ? many : one).replace("{count}", count).replace("{preset}", preset);
  return `${said} ${next}`;
}

app.registerExtension({
  name: "ModularSafetyLora.Withheld",
  setup() {
    api.addEventListener(EVENT, ({ detail }) => {
      const title = app.graph.getNodeById(detail.node)?.title;
      const name = title ? `Modular Safety LoRA: ${title}` : "Modular Safety LoRA";
      toast("info", name, words({ preset: "?", ...detail }), 30_000);
    });
  },
});
