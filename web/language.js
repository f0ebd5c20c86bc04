// What the pack's scripts say, in the language of the settings.
import { app } from "/scripts/app.js";
import { WORDS } from "./words.js";

export const say = (text) => WORDS[app.ui.settings.getSettingValue("Comfy.Locale")]?.[text] ?? text;
