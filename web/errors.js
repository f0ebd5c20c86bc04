// The frontend's own message says that a node threw an error, or refused a value, and not which.
// For the errors of this pack another one says what is wrong and what to do.
import { api } from "/scripts/api.js";
import { app } from "/scripts/app.js";
import { say } from "./language.js";
import { isOld, toast } from "./toast.js";

const OURS = "Modular Safety LoRA."; // before the class of an error: options/errors.py
const RULES = ".p-toast:has(.msl-error) { margin-top: var(--msl-below); }";
const ours = (type) => type?.startsWith("MSL_");

// Before 1.58 this one would stand on the frontend's own message, which comes in from above.
const OVERLAY = '[data-testid="error-overlay"]';
const TRIES = 15; // and a tenth of a second between them: the setting may be that there is none
const wait = (ms) => new Promise((done) => setTimeout(done, ms));

async function below() {
  for (let turn = 0; turn < TRIES && !document.querySelector(OVERLAY); turn++) await wait(100);
  await wait(300); // until it stands still
  const box = document.querySelector(OVERLAY)?.getBoundingClientRect();
  document.documentElement.style.setProperty("--msl-below", `${box ? box.height + 16 : 0}px`);
}

let shown = []; // what takes away what was said of this run

async function tell(node, text) {
  const title = app.graph.getNodeById(node)?.title;
  if (isOld()) await below();
  const name = title ? `Modular Safety LoRA: ${title}` : "Modular Safety LoRA";
  shown.push(toast("error", name, text, 60_000));
}

function forget() {
  for (const takeAway of shown) takeAway();
  shown = [];
}

// The details of a refused value are "input - what is wrong", for each input that was looked at.
function tellRefused(errors) {
  for (const [node, { class_type, errors: found }] of Object.entries(errors ?? {})) {
    if (!ours(class_type)) continue;
    const texts = found.map((each) => {
      const name = each.extra_info?.input_name;
      if (each.type === "custom_validation_failed") return each.details.replace(`${name} - `, "");
      if (each.type !== "value_not_in_list") return "";
      const gone = say("{name}: {value} is not in the list. Choose another one.");
      return gone.replace("{name}", name).replace("{value}", each.extra_info.received_value);
    });
    for (const text of new Set(texts.filter(Boolean))) tell(node, text);
  }
}

app.registerExtension({
  name: "ModularSafetyLora.Errors",
  setup() {
    const style = document.createElement("style");
    style.textContent = RULES;
    document.head.append(style);
    api.addEventListener("execution_error", ({ detail }) => {
      const memory = /out of memory|not enough memory/i.test(detail.exception_message);
      if (memory || !(ours(detail.node_type) || detail.exception_type.startsWith(OURS))) return;
      tell(detail.node_id, detail.exception_message.trim());
    });
    const queue = api.queuePrompt;
    api.queuePrompt = async function (...told) {
      forget();
      try {
        const taken = await queue.apply(this, told);
        tellRefused(taken.node_errors);
        return taken;
      } catch (error) {
        tellRefused(error.response?.node_errors);
        throw error;
      }
    };
  },
});
