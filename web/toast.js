// The frontend's messages in a corner, as they are since 1.58 and as they were before.
import { app } from "/scripts/app.js";

export const isOld = () => !app.extensionManager.toast.dismiss;

// Say something, of the kind error, info or success, for some ms; returns what takes it away.
export function toast(kind, title, text, life) {
  const messages = app.extensionManager.toast;
  if (isOld()) {
    const said = { severity: kind, summary: title, detail: text, life, styleClass: `msl-${kind}` };
    messages.add(said);
    return () => messages.remove(said);
  }
  const id = messages[kind](title, { description: text, duration: life });
  return () => messages.dismiss(id);
}
